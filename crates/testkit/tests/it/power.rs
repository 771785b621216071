//! A disk whose power can be cut forgets what was not synced, and leaves nothing behind.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use waystation_testkit::machine::LoopDisk;
use waystation_testkit::{can_have, until};

/// Tells whether a loop device still has a file.
fn is_attached(image: &Path) -> bool {
    let devices = std::fs::read_dir("/sys/block").expect("a list of devices");
    let backing = |device: std::fs::DirEntry| {
        let file = device.path().join("loop/backing_file");
        std::fs::read_to_string(file).unwrap_or_default()
    };
    let image = image.to_string_lossy();
    let mut backings = devices.map_while(Result::ok).map(backing);
    backings.any(|backing| backing.starts_with(&*image))
}

#[test]
fn a_cut_fails_every_write_and_keeps_what_was_synced_and_nothing_else() {
    if !can_have("a disk whose power can be cut", LoopDisk::check()) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("disk.img");
    let mut disk = LoopDisk::mount(folder.path());
    assert!(is_attached(&image));
    let synced = disk.outside().join("synced");
    let unsynced = disk.outside().join("unsynced");
    let mut file = File::create(&synced).expect("it can be made");
    file.write_all(b"kept").expect("it takes bytes");
    file.sync_all().expect("it syncs");
    std::fs::write(&unsynced, b"gone").expect("it takes bytes");
    disk.cut();
    file.write_all(b"never")
        .and_then(|()| file.sync_all())
        .expect_err("there is no power");
    drop(file);
    disk.restore();
    assert_eq!(std::fs::read(&synced).expect("it is there"), b"kept");
    assert!(!unsynced.exists());

    // Also when the folder goes first, as in a test that fails.
    drop(folder);
    drop(disk);
    until("a loop device that is let go", || {
        (!is_attached(&image)).then_some(())
    });
}
