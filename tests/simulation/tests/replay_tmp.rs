//! tmp
use simulation::errors_at_n::*;
use simulation::plan::Site;
#[test]
fn replay() {
    let stages = stages();
    let s: usize = std::env::var("S").unwrap().parse().unwrap();
    let n: u64 = std::env::var("N").unwrap().parse().unwrap();
    let site = if std::env::var("AT").unwrap() == "source" { Site::Source } else { Site::Replica };
    let mode = match std::env::var("MODE").unwrap().as_str() {
        "once" => Mode::Once,
        "class" => Mode::Class,
        _ => Mode::All,
    };
    let blow = if std::env::var("BLOW").is_ok() { Blow::NoSpace } else { Blow::Io };
    let ran = one(&stages, s, Case { target: Target::Disk(site), n, blow, mode }, true);
    println!("{:?}", ran.outcome.violation);
}
