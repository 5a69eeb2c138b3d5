//! What goes where, and how it reads.

use serde_json::json;

use super::*;

#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a use of a printer leaves on (stdout, stderr).
fn printed(style: Style, print: impl FnOnce(&Printer)) -> (String, String) {
    let (out, err) = (Buffer::default(), Buffer::default());
    print(&Printer::to(style, Box::new(out.clone()), Box::new(err.clone())));
    let text = |buffer: Buffer| String::from_utf8(buffer.0.borrow().clone()).unwrap();
    (text(out), text(err))
}

fn everything(printer: &Printer) {
    printer.data("role  source\n", &json!({ "role": "source" }));
    printer.note("a remark");
    printer.warn("odd");
    let problem = Problem::new("in-use", "the relationship is in use", Exit::OPERATOR)
        .safe("Nothing was changed.")
        .todo("Stop it,\nthen try again.");
    assert_eq!(printer.problem(&problem), Exit::OPERATOR);
}

#[test]
fn people_read_prose() {
    let (out, err) = printed(Style::default(), everything);
    assert_eq!(out, "role  source\n");
    let expected = "a remark\nwarning: odd\nerror: the relationship is in use [in-use]\n  safe   \
        Nothing was changed.\n  to do  Stop it,\n         then try again.\n";
    assert_eq!(err, expected);
}

#[test]
fn machines_read_json() {
    let (out, err) = printed(Style { json: true, ..Style::default() }, everything);
    assert_eq!(out, "{\"role\":\"source\"}\n");
    let lines: Vec<serde_json::Value> =
        err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({ "warning": "odd" }));
    assert_eq!(lines[1]["problem"]["code"], "in-use");
    assert_eq!(lines[1]["problem"]["exit"], 3);
    assert_eq!(lines.len(), 2);
}

#[test]
fn quiet_keeps_data_and_problems_and_colour_is_asked_for() {
    let (out, err) = printed(Style { quiet: true, colour: true, ..Style::default() }, |printer| {
        everything(printer);
        let progress = printer.progress("dump", None);
        progress.update(5, None, &[]);
        progress.finish("done");
    });
    assert_eq!(out, "role  source\n");
    assert!(!err.contains("remark") && !err.contains("dump"));
    assert!(err.contains("\x1b[31;1merror:\x1b[0m"));
}

#[test]
fn columns_are_aligned() {
    let mut table = Table::new(&[("name", Align::Left), ("size", Align::Right)]);
    table.row(["a", "1"]);
    table.row(["größe", "1000", "too many"]);
    table.row(["short"]);
    assert_eq!(table.to_string(), "name   size\na         1\ngröße  1000\nshort\n");
    let mut pairs = Table::pairs();
    pairs.row(["role", "source"]);
    assert_eq!(pairs.to_string(), "role  source\n");
}

#[test]
fn progress_is_thinned_out_and_its_end_is_told() {
    let (_, err) = printed(Style::default(), |printer| {
        let progress = printer.progress("dump", Some(4096));
        for done in 0..1000 {
            progress.update(done, Some(4096), &[("preserved", "3 grains".to_owned())]);
        }
        progress.finish("done");
    });
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines[0], "dump: 0 B of 4.0 KiB, 0 B/s, preserved 3 grains");
    assert!(lines[1].starts_with("dump: done, 999 B in "), "{err}");
}

#[test]
fn progress_in_json_is_one_value_a_line() {
    let (_, err) = printed(Style { json: true, ..Style::default() }, |printer| {
        let progress = printer.progress("load", None);
        progress.update(7, Some(10), &[("media", "2".to_owned())]);
        progress.finish("done");
    });
    let lines: Vec<serde_json::Value> =
        err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["progress"]["bytes"], 7);
    assert_eq!(lines[0]["progress"]["extra"]["media"], "2");
    assert_eq!(lines[1]["progress"]["ended"], "done");
}

#[test]
fn exit_codes_are_those_of_the_document() {
    let page = include_str!("../../../../docs/exit-codes.md");
    for rule in grain::attach::Rule::ALL {
        let Exit(code) = Exit::of_rule(rule);
        let row = format!("| {code} | `{}`", rule.name());
        assert!(code == 0 || page.contains(&row), "{row}");
    }
    for code in [0, 1, 2, 3, 4, 5, 6, 19] {
        assert!(page.contains(&format!("\n| {code} |")), "{code}");
    }
    use grain::ErrorClass::{Bug, Corrupt, Operator, Peer, Retry};
    for class in [Bug, Corrupt, Operator, Peer, Retry] {
        assert_eq!(Exit::of_class(class).class(), class);
    }
}
