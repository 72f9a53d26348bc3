//! Tries the team's SQL without running it: what would fail on the day of the switch should fail today.
//!
//! Queries and changes are explained, which looks at names, types and rights and touches no row. Other statements are prepared, and the
//! relation that they name is looked for, because Postgres itself looks only when they run. Everything is in a transaction that may
//! write nothing and is rolled back.

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::error::{Error, Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::target::statements::quote;
use crate::secret::Secret;

/// A connection for trials.
pub struct Trial {
    client: Client,
    task: JoinHandle<()>,
}

const DOING: &str = "trying SQL";

impl Trial {
    /// Connects. Names are found as on the day of the switch.
    pub async fn open(url: &Secret, schema: &str) -> Result<Self> {
        let (client, task) = connect(url).await?;
        let path = format!("SET search_path = {}, public; SET statement_timeout = '10s'", quote(schema));
        client.batch_execute(&path).await.map_err(|error| explain("preparing the connection", &error))?;
        Ok(Self { client, task })
    }

    /// A query whose rows are counted.
    pub async fn query(&self, sql: &str) -> Result<()> {
        let sql = sql.trim().trim_end_matches(';');
        self.explain(&format!("SELECT FROM ({sql}\n) AS q")).await
    }

    /// Statements that run one after the other. Those after the first one that makes or changes something cannot be judged.
    pub async fn statements(&self, sql: &str) -> Result<()> {
        for statement in split(sql) {
            let words = words(statement);
            let word = words.first().map_or("", String::as_str);
            match word {
                "" => {}
                "select" | "insert" | "update" | "delete" | "with" | "values" | "table" | "merge" => {
                    self.explain(statement).await?;
                }
                "refresh" | "analyze" | "analyse" | "vacuum" | "reindex" | "cluster" | "lock" => {
                    self.prepare(statement).await?;
                    self.relation(word, &words).await?;
                }
                _ => {
                    self.prepare(statement).await?;
                    if changes(word) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn explain(&self, statement: &str) -> Result<()> {
        let begun = self.client.batch_execute("BEGIN READ ONLY").await;
        begun.map_err(|error| explain(DOING, &error))?;
        let tried = self.client.query(&format!("EXPLAIN {statement}"), &[]).await;
        let ended = self.client.batch_execute("ROLLBACK").await;
        tried.map(drop).map_err(|error| told(&error))?;
        ended.map_err(|error| explain(DOING, &error))
    }

    async fn prepare(&self, statement: &str) -> Result<()> {
        self.client.prepare(statement).await.map(drop).map_err(|error| told(&error))
    }

    /// The relation that a statement such as `REFRESH MATERIALIZED VIEW CONCURRENTLY x` names.
    async fn relation(&self, word: &str, words: &[String]) -> Result<()> {
        const BESIDE: [&str; 12] = [
            "materialized",
            "view",
            "concurrently",
            "table",
            "index",
            "verbose",
            "full",
            "freeze",
            "only",
            "analyze",
            "schema",
            "database",
        ];
        let of_relations =
            !words.iter().any(|word| matches!(word.as_str(), "schema" | "database" | "system"));
        let name =
            words.iter().skip(1).find(|word| !BESIDE.contains(&word.as_str()) && !word.starts_with('('));
        let Some(name) = name.filter(|_| of_relations) else { return Ok(()) };
        let known = self.client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await;
        let known: bool = known.and_then(|row| row.try_get(0)).map_err(|error| told(&error))?;
        match known {
            true => Ok(()),
            false => {
                Err(Error::new(Kind::Unsuitable, DOING, format!("relation {name} does not exist ({word})")))
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is wrong with names and syntax is said in the server's own words, which repeat the file and nothing else.
fn told(error: &tokio_postgres::Error) -> Error {
    let ours = explain(DOING, error);
    match error.as_db_error() {
        Some(theirs) if theirs.code().code().starts_with("42") => {
            Error { what: theirs.message().to_owned(), ..ours }
        }
        _ => ours,
    }
}

/// Names that are used later may come from such a statement.
fn changes(word: &str) -> bool {
    matches!(
        word,
        "create"
            | "alter"
            | "drop"
            | "do"
            | "call"
            | "set"
            | "begin"
            | "start"
            | "execute"
            | "import"
            | "truncate"
    )
}

/// The statement's first words, in lower case as far as they are not quoted; comments are left out.
fn words(statement: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for piece in pieces(statement) {
        match piece {
            Piece::Plain(text) => {
                for letter in text.chars() {
                    if letter.is_whitespace() || letter == ',' || letter == '(' || letter == ';' {
                        if !word.is_empty() {
                            words.push(std::mem::take(&mut word));
                        }
                    } else {
                        word.extend(letter.to_lowercase());
                    }
                }
            }
            Piece::Quoted(text) => word.push_str(text),
            Piece::Comment => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The statements of a text.
fn split(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut start, mut at) = (0, 0);
    for piece in pieces(sql) {
        let length = match piece {
            Piece::Plain(text) => {
                for (place, _) in text.match_indices(';') {
                    statements.push(&sql[start..at + place]);
                    start = at + place + 1;
                }
                text.len()
            }
            Piece::Quoted(text) => text.len(),
            Piece::Comment => 0,
        };
        at += length;
        if let Piece::Comment = piece {
            at = after_comment(sql, at);
        }
    }
    statements.push(&sql[start..]);
    statements.into_iter().map(str::trim).filter(|statement| !words(statement).is_empty()).collect()
}

enum Piece<'a> {
    Plain(&'a str),
    /// In quotes of any kind, the quotes included.
    Quoted(&'a str),
    Comment,
}

/// Where a comment that begins here ends.
fn after_comment(sql: &str, at: usize) -> usize {
    let rest = &sql[at..];
    if rest.starts_with("--") {
        return rest.find('\n').map_or(sql.len(), |end| at + end);
    }
    let (mut depth, mut place) = (0_usize, 0);
    while place < rest.len() {
        let here = &rest.as_bytes()[place..];
        if here.starts_with(b"/*") {
            depth += 1;
            place += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            place += 2;
            if depth == 0 {
                return at + place;
            }
        } else {
            place += 1;
        }
    }
    sql.len()
}

/// Where quotes that begin here end; none where there are none.
fn after_quotes(sql: &str, at: usize) -> Option<usize> {
    let rest = &sql[at..];
    let first = rest.chars().next()?;
    if first == '\'' || first == '"' {
        let end = rest[1..].find(first).map_or(rest.len(), |end| end + 2);
        return Some(at + end);
    }
    let tag_end = rest.strip_prefix('$')?.find('$')? + 2;
    let tag = &rest[..tag_end];
    if !tag[1..tag_end - 1].chars().all(|letter| letter.is_alphanumeric() || letter == '_') {
        return None;
    }
    let end = rest[tag_end..].find(tag).map_or(rest.len(), |end| tag_end + end + tag_end);
    Some(at + end)
}

fn pieces(sql: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < sql.len() {
        let rest = &sql[at..];
        let (piece, end) = if rest.starts_with("--") || rest.starts_with("/*") {
            (Piece::Comment, after_comment(sql, at))
        } else if let Some(end) = after_quotes(sql, at) {
            (Piece::Quoted(&sql[at..end]), end)
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if start < at {
            pieces.push(Piece::Plain(&sql[start..at]));
        }
        pieces.push(piece);
        start = end;
        at = end;
    }
    if start < sql.len() {
        pieces.push(Piece::Plain(&sql[start..]));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_semicolons_that_end_a_statement() {
        let sql = "select ';' -- not ; here\n; update \"a;b\" set x = $q$;$q$ /* ; /* ; */ */ where y = 'it''s;';;\nanalyze t";
        assert_eq!(
            split(sql),
            [
                "select ';' -- not ; here",
                "update \"a;b\" set x = $q$;$q$ /* ; /* ; */ */ where y = 'it''s;'",
                "analyze t"
            ]
        );
        assert_eq!(split("  -- nothing\n ; "), Vec::<&str>::new());
        assert_eq!(split("select $1, '$a$' ; select 2"), ["select $1, '$a$'", "select 2"]);
    }

    #[test]
    fn sees_the_words_of_a_statement() {
        assert_eq!(
            words("REFRESH /* now */ MATERIALIZED VIEW public.\"Search Index\""),
            ["refresh", "materialized", "view", "public.\"Search Index\""]
        );
    }
}
