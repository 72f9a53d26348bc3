//! How people are kept from editing a base that cannot refuse writers by itself: the office has a door.
//!
//! Everybody who edits goes in for one piece of work at a time. Whoever closes the door waits until nobody is inside, so what is
//! read afterwards is the last.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The door of an office, which is a folder.
#[derive(Clone, Debug)]
pub struct Door {
    notice: PathBuf,
    lock: PathBuf,
}

/// Somebody is inside for as long as this is there.
#[derive(Debug)]
pub struct Inside {
    _lock: File,
}

impl Door {
    /// The door of the office in this folder, which is made if need be.
    pub fn of(office: &Path) -> Result<Self> {
        std::fs::create_dir_all(office).map_err(failed)?;
        Ok(Self { notice: office.join("closed"), lock: office.join("inside") })
    }

    fn lock(&self) -> Result<File> {
        File::options().create(true).truncate(false).write(true).open(&self.lock).map_err(failed)
    }

    /// Goes in, unless it is closed.
    pub fn enter(&self) -> Result<Option<Inside>> {
        let lock = self.lock()?;
        lock.lock_shared().map_err(failed)?;
        let closed = self.notice.try_exists().map_err(failed)?;
        Ok((!closed).then_some(Inside { _lock: lock }))
    }

    /// Lets nobody in any more, and waits until all have left.
    pub fn close(&self) -> Result<()> {
        File::create(&self.notice).map_err(failed)?;
        self.lock()?.lock().map_err(failed)
    }

    /// Lets people in again.
    pub fn open(&self) -> Result<()> {
        match std::fs::remove_file(&self.notice) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::Unexpected(format!("the door of the office: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_waits_for_those_inside() {
        let folder = std::env::temp_dir().join(format!("slackwater-door-{}", std::process::id()));
        let door = Door::of(&folder).expect("a door");
        let inside = door.enter().expect("it works");
        assert!(inside.is_some());
        let (sender, closed) = std::sync::mpsc::channel();
        let closing = {
            let door = door.clone();
            std::thread::spawn(move || {
                let outcome = door.close();
                sender.send(outcome.is_ok())
            })
        };
        // The notice is up at once, and the work inside is not over.
        while !door.notice.exists() {
            std::thread::yield_now();
        }
        assert!(closed.try_recv().is_err());
        drop(inside);
        assert_eq!(closed.recv(), Ok(true));
        assert!(door.enter().expect("it works").is_none());
        door.open().expect("it opens");
        door.open().expect("again");
        assert!(door.enter().expect("it works").is_some());
        assert!(closing.join().is_ok());
        std::fs::remove_dir_all(folder).expect("the folder can go");
    }
}
