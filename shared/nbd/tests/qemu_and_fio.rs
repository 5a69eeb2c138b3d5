//! qemu-img, qemu-io (which speak extended headers) and fio against the server.

mod harness;

use harness::{Served, noise, on_one_thread, run_tool};

#[test]
fn qemu_img_converts_compares_and_maps() {
    on_one_thread(async {
        let (served, memory) = Served::memory(8 << 20).await;
        let (image, qcow) = (served.path("image"), served.path("image.qcow2"));
        let mut content = vec![0; 8 << 20];
        content[1 << 20..3 << 20].copy_from_slice(&noise(2 << 20, 3));
        std::fs::write(&image, &content).expect("room for the image");
        let uri = served.uri();
        let convert = ["convert", "-n", "-f", "raw", "-O", "raw", &image, &uri];
        run_tool("qemu-img", &convert).await;
        let mut held = vec![1; content.len()];
        memory.read(0, &mut held);
        assert!(held == content, "the export holds the image");
        run_tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &uri]).await;
        run_tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, &qcow]).await;
        run_tool("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", &qcow, &uri]).await;
        let map = run_tool("qemu-img", &["map", "--output=json", "-f", "raw", &uri]).await;
        let data = r#""start": 1048576, "length": 2097152, "depth": 0, "present": true, "zero": false, "data": true"#;
        assert!(map.contains(data), "{map}");
        let holes = map.matches(r#""zero": true, "data": false"#).count();
        assert_eq!(holes, 2, "{map}");
    });
}

#[test]
fn qemu_io_writes_zeroes_discards_and_flushes() {
    on_one_thread(async {
        let (served, memory) = Served::memory(4 << 20).await;
        let uri = served.uri();
        let commands = [
            "write -P 0xab 0 1M",
            "read -P 0xab 0 1M",
            "write -f -P 0xcd 64k 4k",
            "write -z 128k 64k",
            "write -z -u 256k 64k",
            "discard 512k 64k",
            "read -P 0 128k 64k",
            "read -P 0 256k 64k",
            "read -P 0xcd 64k 4k",
            "read -P 0 2M 2M",
            "flush",
        ];
        let mut arguments = vec!["-f", "raw", "-d", "unmap"];
        for command in commands {
            arguments.extend(["-c", command]);
        }
        arguments.push(&uri);
        let output = run_tool("qemu-io", &arguments).await;
        assert!(!output.contains("failed"), "{output}");
        assert!(memory.flushes() >= 2, "force unit access and flush arrived");
        let stopped = run_tool("qemu-io", &["-f", "raw", "-c", "length", &uri]).await;
        assert!(stopped.contains("4 MiB"), "{stopped}");
    });
}

#[test]
fn fio_verifies_what_it_wrote() {
    on_one_thread(async {
        let (served, _) = Served::memory(16 << 20).await;
        for (pattern, block, depth) in [("randrw", "4k", "32"), ("write", "256k", "8")] {
            let uri = format!("--uri={}", served.uri());
            let arguments = [
                "--name=verify",
                "--ioengine=nbd",
                &uri,
                &format!("--rw={pattern}"),
                &format!("--bs={block}"),
                &format!("--iodepth={depth}"),
                "--size=16m",
                "--verify=crc32c",
                "--do_verify=1",
                "--verify_fatal=1",
                "--verify_state_save=0",
            ];
            run_tool("fio", &arguments).await;
        }
    });
}
