//! Values that are not in the file: `${NAME}` from the environment, `${file:/path}` from a file beside it.

use std::path::Path;

use slackwater_connectors::secret::{Part, Secret};

use super::blot::is_variable;
use super::diagnostics::Findings;
use super::fields;
use super::tree::Node;

/// Where values come from that are not written in the migration file.
#[derive(Clone, Copy)]
pub struct Outside<'o> {
    /// The value of a name in the environment.
    pub environment: &'o dyn Fn(&str) -> Option<String>,
    /// The contents of a file.
    pub file: &'o dyn Fn(&Path) -> std::io::Result<String>,
    /// The names of the files in a folder.
    pub folder: &'o dyn Fn(&Path) -> std::io::Result<Vec<String>>,
}

/// The names of the files in a folder of the file system.
pub(super) fn files_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A link too: Kubernetes mounts files as such.
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

impl std::fmt::Debug for Outside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside")
    }
}

/// Puts the values from outside in. The result is a secret: it may hold a password.
pub(super) fn secret(
    node: &Node,
    what: &str,
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Option<Secret> {
    let text = fields::text(node, what, findings)?;
    let mut parts = Vec::new();
    let mut rest = text.value.as_str();
    let mut whole = true;
    while let Some(start) = rest.find("${") {
        parts.push(Part::Text(rest[..start].to_owned()));
        let Some(length) = rest[start..].find('}') else {
            let help = "write `${NAME}` or `${file:/path}`";
            findings.error(node.place, format!("`${{` in {what} is not closed"), help);
            return None;
        };
        match value(&rest[start + 2..start + length], outside) {
            Ok(part) => parts.push(part),
            Err((message, help)) => {
                findings.error(node.place, message, help);
                whole = false;
            }
        }
        rest = &rest[start + length + 1..];
    }
    parts.push(Part::Text(rest.to_owned()));
    whole.then(|| Secret::of(parts))
}

/// The value of `name`, or what is wrong and what would mend it.
fn value(name: &str, outside: &Outside<'_>) -> Result<Part, (String, &'static str)> {
    let Some(path) = name.strip_prefix("file:") else {
        if !is_variable(name) {
            let help = "write `${NAME}` or `${file:/path}`; a name is made of letters, digits and `_`";
            return Err(("what is between `${` and `}` is not the name of a variable".to_owned(), help));
        }
        let help = "set it where slackwater is started, for instance in `.env`";
        let value = (outside.environment)(name).map(Part::Text);
        return value.ok_or_else(|| (format!("the environment has no `{name}`"), help));
    };
    let path = Path::new(path);
    (outside.file)(path).map(|text| Part::file(path, &text)).map_err(|error| {
        let help = "name a file that slackwater may read: `${file:/run/secrets/name}`";
        (format!("the file `{}` cannot be read: {error}", path.display()), help)
    })
}
