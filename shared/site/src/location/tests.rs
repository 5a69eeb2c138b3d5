//! The choice of the state directory, names, and the lock.

use super::*;

fn around(is_root: bool, set: &'static [(&'static str, &'static str)]) -> Surroundings {
    let variable = move |name: &str| {
        set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
    };
    Surroundings { is_root, variable: Box::new(variable) }
}

#[test]
fn option_variable_and_default_come_in_this_order() {
    let all = &[("GRAINHAUL_STATE", "/g"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
    let chosen = |option: Option<&str>, around| choose(option.map(Path::new), &around);
    let path = |text: &str| PathBuf::from(text);
    assert_eq!(chosen(Some("/o"), around(false, all)).unwrap(), path("/o"));
    assert_eq!(chosen(None, around(true, all)).unwrap(), path("/g"));
    assert_eq!(chosen(None, around(true, &all[1..])).unwrap(), path("/var/lib/grainhaul"));
    assert_eq!(chosen(None, around(false, &all[1..])).unwrap(), path("/x/grainhaul"));
    let home = path("/h/.local/state/grainhaul");
    assert_eq!(chosen(None, around(false, &all[2..])).unwrap(), home);
    let odd = &[("GRAINHAUL_STATE", ""), ("XDG_STATE_HOME", "relative"), ("HOME", "/h")];
    assert_eq!(chosen(None, around(false, odd)).unwrap(), home);
    assert!(matches!(chosen(None, around(false, &[])), Err(Error::NoStateDir)));
}

#[test]
fn names_are_safe_as_directories() {
    for good in ["a", "db-1", "A.b_c", &"x".repeat(64)] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\0", &"x".repeat(65)] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<Name>("\"../x\"").is_err());
}

#[test]
fn relationships_are_listed_when_they_have_state() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::choose(Some(&dir.path().join("state"))).unwrap();
    state.prepare().unwrap();
    assert!(state.relationships().unwrap().is_empty());
    for name in ["b", "a", "half"] {
        let relationship = state.relationship(&name.parse().unwrap());
        relationship.prepare().unwrap();
        if name != "half" {
            fs::write(relationship.state_file(), "{}").unwrap();
        }
    }
    let names: Vec<_> = state.relationships().unwrap().iter().map(Name::to_string).collect();
    assert_eq!(names, ["a", "b"]);
    let error = state.existing(&"half".parse().unwrap()).unwrap_err();
    assert_eq!(error.code(), "no-relationship");
    assert!(state.existing(&"a".parse().unwrap()).is_ok());
}

#[test]
fn a_state_directory_open_to_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::choose(Some(&dir.path().join("s"))).unwrap();
    state.prepare().unwrap();
    let mode = fs::metadata(state.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    fs::set_permissions(state.root(), fs::Permissions::from_mode(0o750)).unwrap();
    let error = state.prepare().unwrap_err();
    assert!(error.to_string().contains("750"), "{error}");
}

#[test]
fn the_lock_says_who_holds_it_and_goes_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::choose(Some(dir.path())).unwrap();
    let relationship = state.relationship(&"db".parse().unwrap());
    relationship.prepare().unwrap();
    let held = relationship.lock().unwrap();
    let error = relationship.lock().unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    relationship.lock().unwrap();
}
