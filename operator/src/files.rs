//! Which files are read, and their text.
//!
//! Regular files only: a FIFO or a device would hold up the reader for as long as nobody writes. Each file and folder
//! counts once, by device and inode, whatever links lead to it.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The largest file that is read, in MiB.
pub const LARGEST_MIB: u64 = 64;

/// The name that stands for standard input, as with kubectl.
pub const STDIN: &str = "-";

/// What is in files and folders.
#[derive(Debug, Default)]
pub struct Found {
    /// Files of objects, in order.
    pub files: Vec<PathBuf>,
    /// Files and folders that cannot be looked at: what they hold is not known.
    pub unreadable: Vec<(PathBuf, anyhow::Error)>,
    /// What is never read, a line each.
    pub skipped: Vec<String>,
    seen: BTreeSet<(u64, u64)>,
}

impl Found {
    /// Adds a file or folder that somebody names: it is read whatever it is called and whatever it is.
    pub fn add(&mut self, path: &Path) {
        if path == Path::new(STDIN) {
            self.files.push(path.to_owned());
            return;
        }
        let looked = std::fs::metadata(path).map_err(anyhow::Error::from);
        let done = looked.and_then(|metadata| {
            if metadata.is_dir() {
                return self.folder(path, &metadata);
            }
            if !metadata.is_file() || self.is_new(&metadata) {
                self.files.push(path.to_owned());
            }
            Ok(())
        });
        self.note(path, done);
    }

    fn note(&mut self, path: &Path, done: anyhow::Result<()>) {
        if let Err(error) = done {
            let error = error.context(format!("cannot read {}", path.display()));
            self.unreadable.push((path.to_owned(), error));
        }
    }

    fn is_new(&mut self, metadata: &Metadata) -> bool {
        self.seen.insert((metadata.dev(), metadata.ino()))
    }

    /// The entries of a folder in order of name. Hidden ones are those of editors, of git, and of a mounted ConfigMap, which
    /// has links to them besides.
    fn folder(&mut self, path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
        if !self.is_new(metadata) {
            self.skip(path, "it leads to a folder that is read already");
            return Ok(());
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                entries.push(entry.path());
            }
        }
        entries.sort();
        for entry in entries {
            let done = self.entry(&entry);
            self.note(&entry, done);
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> anyhow::Result<()> {
        let extension = path.extension();
        let named = extension.is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.folder(path, &metadata)?,
            Ok(_) if !named => {}
            Ok(metadata) if metadata.is_file() => {
                if self.is_new(&metadata) {
                    self.files.push(path.to_owned());
                }
            }
            Ok(metadata) => self.skip(path, special(&metadata)),
            // What cannot be looked at may be a folder.
            Err(error) if named || extension.is_none() => return Err(error.into()),
            Err(_) => {}
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.skipped
            .push(format!("{}: not read: {why}", path.display()));
    }
}

fn special(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "it is a FIFO, and no file"
    } else if kind.is_socket() {
        "it is a socket, and no file"
    } else {
        "it is a device, and no file"
    }
}

/// Looks through a folder. It is an error only when the folder itself cannot be read.
pub fn look(dir: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    found.add(dir);
    match found.unreadable.pop_if(|(path, _)| path == dir) {
        Some((_, error)) => Err(error),
        None => Ok(found),
    }
}

/// The text of a file. One that never ends, or grows while it is read, ends at the bound.
pub fn text(path: &Path) -> anyhow::Result<String> {
    let read = if path == Path::new(STDIN) {
        bounded(std::io::stdin().lock())
    } else {
        std::fs::File::open(path)
            .map_err(anyhow::Error::from)
            .and_then(bounded)
    };
    read.with_context(|| format!("cannot read {}", path.display()))
}

fn bounded(reader: impl Read) -> anyhow::Result<String> {
    let most = LARGEST_MIB << 20;
    let mut bytes = Vec::new();
    reader.take(most + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= most,
        "it has more than {LARGEST_MIB} MiB: split it"
    );
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("it is not UTF-8 at byte {at}: save it as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("trimtab-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn names(found: &Found, dir: &Path) -> Vec<String> {
        let inside = |path: &PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
        found.files.iter().map(inside).collect()
    }

    #[test]
    fn fault_o4_what_is_no_file_is_named_and_not_read() {
        let dir = folder("files-special");
        std::fs::write(dir.join("a.yaml"), "a: b").unwrap();
        let fifo = Command::new("mkfifo").arg(dir.join("f.yaml")).status();
        assert!(fifo.unwrap().success());
        let _socket = UnixListener::bind(dir.join("s.yaml")).unwrap();
        symlink("/dev/zero", dir.join("z.yaml")).unwrap();
        std::fs::write(dir.join("notes.txt"), "").unwrap();
        let found = look(&dir).unwrap();
        assert_eq!(names(&found, &dir), ["a.yaml"]);
        assert!(found.unreadable.is_empty());
        for (name, what) in [("f", "FIFO"), ("s", "socket"), ("z", "device")] {
            let path = dir.join(format!("{name}.yaml")).display().to_string();
            let told = |line: &String| line.starts_with(&path) && line.contains(what);
            assert!(found.skipped.iter().any(told), "{:?}", found.skipped);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn fault_o4_each_file_and_folder_counts_once() {
        let dir = folder("files-links");
        let (out, inner) = (folder("files-links-out"), dir.join("inner"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("b.yaml"), "").unwrap();
        std::fs::write(out.join("o.yaml"), "").unwrap();
        symlink(".", dir.join("here")).unwrap();
        symlink("..", inner.join("up")).unwrap();
        symlink(&out, dir.join("out")).unwrap();
        symlink("inner/b.yaml", dir.join("zz.yaml")).unwrap();
        symlink("loop.yaml", dir.join("loop.yaml")).unwrap();
        let found = look(&dir).unwrap();
        assert_eq!(names(&found, &dir), ["inner/b.yaml", "out/o.yaml"]);
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
        let unreadable: Vec<_> = found.unreadable.iter().map(|(path, _)| path).collect();
        assert_eq!(unreadable, [&dir.join("loop.yaml")]);
        for dir in [dir, out] {
            std::fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn fault_o5_the_hidden_entries_of_a_mounted_config_map_are_not_read() {
        let dir = folder("files-mounted");
        let at = dir.join("..2026_01_01");
        std::fs::create_dir(&at).unwrap();
        std::fs::write(at.join("a.yaml"), "").unwrap();
        symlink("..2026_01_01", dir.join("..data")).unwrap();
        symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
        symlink("nobody@host", dir.join(".#a.yaml")).unwrap();
        let found = look(&dir).unwrap();
        assert_eq!(names(&found, &dir), ["a.yaml"]);
        assert!(found.unreadable.is_empty() && found.skipped.is_empty());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn fault_o4_a_file_without_end_ends_at_the_bound() {
        let error = text(Path::new("/dev/zero")).unwrap_err();
        assert!(format!("{error:#}").contains("64 MiB"), "{error:#}");
        let error = bounded(&b"a: \xff"[..]).unwrap_err().to_string();
        assert!(error.contains("byte 3"), "{error}");
    }
}
