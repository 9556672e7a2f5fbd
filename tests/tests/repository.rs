//! Rules for the files that are tracked: where symbolic links lead, and how long Rust files may be.

#[cfg(test)]
mod rules {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// Lines that a Rust file may have.
    const LINES: usize = 500;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap()
            .to_owned()
    }

    /// Tracked files that are still there.
    fn tracked() -> Vec<String> {
        let output = Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(repository())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut files: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .split_terminator('\0')
            .filter(|name| repository().join(name).symlink_metadata().is_ok())
            .map(str::to_owned)
            .collect();
        files.dedup();
        assert!(!files.is_empty(), "git tracks no file");
        files
    }

    /// What is wrong with the symbolic link `link` in the folder `root`.
    fn complaint(root: &Path, link: &Path) -> Option<String> {
        let target = std::fs::read_link(root.join(link)).unwrap();
        let shown = format!("{} -> {}", link.display(), target.display());
        if target.is_absolute() {
            return Some(format!("{shown}: absolute targets lead out of the tree"));
        }
        match root.join(link).canonicalize() {
            Err(_) => Some(format!("{shown}: leads nowhere")),
            Ok(end) if !end.starts_with(root.canonicalize().unwrap()) => {
                Some(format!("{shown}: leads out of the tree"))
            }
            Ok(_) => None,
        }
    }

    #[test]
    fn fault_o32_tracked_links_stay_inside_and_lead_somewhere() {
        let root = repository();
        let wrong: Vec<String> = tracked()
            .iter()
            .filter(|name| root.join(name).is_symlink())
            .filter_map(|name| complaint(&root, Path::new(name)))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn fault_o32_links_that_lead_out_are_found() {
        let root = std::env::temp_dir().join(format!("trimtab-links-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("folder")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for (link, target, wrong) in [
            ("folder/good", "../file", None),
            ("absolute", "/tmp/sudo", Some("absolute")),
            ("dangling", "missing", Some("nowhere")),
            ("folder/out", "../..", Some("out of the tree")),
        ] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
            let found = complaint(&root, Path::new(link));
            match wrong {
                None => assert_eq!(found, None),
                Some(why) => assert!(found.is_some_and(|f| f.contains(why)), "{link}: {why}"),
            }
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn rust_files_are_short() {
        let mut wrong = Vec::new();
        for name in tracked().iter().filter(|name| name.ends_with(".rs")) {
            let text = std::fs::read_to_string(repository().join(name)).unwrap();
            let lines = text.lines().count();
            if lines > LINES {
                wrong.push(format!("{name} has {lines} lines: split it"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn fault_o36_scripts_change_nothing_of_the_system() {
        let mut seen = 0;
        let scripts = |name: &&String| name.starts_with("scripts/") || name.as_str() == "Makefile";
        for name in tracked().iter().filter(scripts) {
            let text = std::fs::read_to_string(repository().join(name)).unwrap();
            seen += 1;
            for line in text.lines() {
                // What a message tells people to do is theirs.
                let says = line.trim_start().starts_with('#') || line.contains("fail \"");
                for word in [
                    "sudo ",
                    "sudo=",
                    "apt-get install",
                    "systemctl",
                    "npm install -g",
                ] {
                    assert!(says || !line.contains(word), "{name}: {line}");
                }
            }
        }
        assert!(seen > 5, "{seen}");
    }
}

/// What the scripts do to the machine: nothing, but for the cache.
#[cfg(test)]
mod machine {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// Programs that could change the machine, in place of which one runs that only writes down how it was called, and fails.
    const STAND_INS: [&str; 12] = [
        "apt",
        "apt-get",
        "cargo",
        "dpkg",
        "dpkg-deb",
        "go",
        "npm",
        "pip",
        "python3",
        "service",
        "sudo",
        "systemctl",
    ];
    /// What the scripts use besides.
    const TOOLS: [&str; 14] = [
        "bash", "cat", "cut", "dirname", "env", "head", "mkdir", "mktemp", "mv", "rm", "sed", "sh",
        "tail", "uname",
    ];

    fn which(tool: &str) -> PathBuf {
        let path = std::env::var_os("PATH").unwrap();
        let mut folders = std::env::split_paths(&path);
        let found = folders.find_map(|folder| Some(folder.join(tool)).filter(|p| p.exists()));
        found.unwrap_or_else(|| panic!("{tool} is not on PATH"))
    }

    /// Runs a script in a machine that has nothing; how the stand-ins were called.
    fn calls(root: &Path, script: &[&str]) -> Vec<String> {
        let bin = root.join("bin");
        let _ = std::fs::remove_dir_all(root);
        for folder in [&bin, &root.join("home"), &root.join("cache")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let log = root.join("calls");
        std::fs::write(&log, "").unwrap();
        for name in STAND_INS {
            let text = format!(
                "#!/bin/sh\necho \"{name} $*\" >> {}\nexit 1\n",
                log.display()
            );
            std::fs::write(bin.join(name), text).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(bin.join(name), mode).unwrap();
        }
        for tool in TOOLS {
            symlink(which(tool), bin.join(tool)).unwrap();
        }
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let output = Command::new(bin.join("bash"))
            .arg(repository.join("scripts").join(script[0]))
            .args(&script[1..])
            .env_clear()
            .env("PATH", &bin)
            .env("HOME", root.join("home"))
            .env("TRIMTAB_CACHE", root.join("cache"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.is_empty() || !said.contains("sudo"), "{said}");
        let left = std::fs::read_dir(root.join("home")).unwrap().count();
        assert_eq!(left, 0, "{script:?} leaves something in HOME");
        let calls = std::fs::read_to_string(log).unwrap();
        calls.lines().map(str::to_owned).collect()
    }

    #[test]
    fn fault_o36_a_run_of_the_scripts_calls_no_installer() {
        let root = std::env::temp_dir().join(format!("trimtab-machine-{}", std::process::id()));
        let cache = root.join("cache").display().to_string();
        let mut packages = 0;
        for script in [&["deps.sh", "--optional"][..], &["protocol-tools.sh"]] {
            for call in calls(&root, script) {
                let (program, arguments) = call.split_once(' ').unwrap();
                let own = arguments.contains("Dir::Cache=");
                let harmless = match program {
                    "apt-get" if arguments.contains(" download ") => own,
                    "apt-get" => {
                        own && arguments.contains("Dir::State::Lists=")
                            && arguments.ends_with(" update")
                    }
                    "python3" => arguments.starts_with("-m venv ") && arguments.contains(&cache),
                    "npm" => arguments.contains(&format!("--prefix {cache}")),
                    "go" | "cargo" => !arguments.contains("install"),
                    _ => false,
                };
                assert!(harmless, "{script:?}: {call}");
                packages += usize::from(program == "apt-get");
            }
        }
        assert!(packages >= 2, "the Debian packages were asked for");
        std::fs::remove_dir_all(root).unwrap();
    }
}
