//! Disks to fill and to cut the power of.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::ioctl::{self, Setter, opcode};

use super::{as_root, is_installed};

/// A small file system of its own; it goes with the value.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    with_sudo: bool,
}

impl SmallDisk {
    /// Mounts one of a size such as `96m`.
    ///
    /// # Panics
    /// Where that is not allowed: a test that was left out proves nothing.
    #[must_use]
    pub fn mount(path: &Path, size: &str) -> Self {
        std::fs::create_dir_all(path).expect("a folder");
        let options = format!("size={size},mode=1777");
        let with_sudo = [false, true].into_iter().find(|&with_sudo| {
            let mut mount = as_root("mount", with_sudo);
            mount
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(path);
            mount.status().is_ok_and(|status| status.success())
        });
        Self {
            path: path.to_path_buf(),
            with_sudo: with_sudo
                .expect("a small file system: run as root, or with sudo that asks nothing"),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = as_root("umount", self.with_sudo);
        drop(unmount.arg("--lazy").arg(&self.path).status());
    }
}

/// Writes zeroes until there are so many, or until there is no room.
///
/// # Panics
/// When the file cannot be made.
pub fn fill(path: &Path, bytes: u64) {
    let mut file = File::create(path).expect("it can be made");
    let piece = [0; 4_096];
    let mut left = bytes;
    while left > 0 && file.write_all(&piece).is_ok() {
        left = left.saturating_sub(4_096);
    }
}

/// The size of a disk: more than what a server wants to be free, in a file that has room only for what is written.
const DISK_BYTES: u64 = 192 << 20;

/// What a name space's keeper does: it mounts, mounts again when told, and clears away when nobody tells any
/// more, also where the folder under the mount has gone before it.
const KEEPER: &str = r#"
set -e
loop=$(losetup -f --show "$1")
trap 'umount -l "$2" || :; losetup -d "$loop"' EXIT
mount "$loop" "$2"
echo ready
while read -r _; do umount "$2"; mount "$loop" "$2"; echo ready; done
"#;

/// An ext4 disk in a file, whose power can be cut: what was not synced by then is gone.
///
/// It is mounted in a name space of its own, which ends with the value or with the test, however that
/// ends; nothing of it stays in the system. Only what is started through [`LoopDisk::command`] sees it.
#[derive(Debug)]
pub struct LoopDisk {
    keeper: Child,
    tell: Option<ChildStdin>,
    told: BufReader<ChildStdout>,
    at: PathBuf,
}

impl LoopDisk {
    /// Says whether this machine can.
    ///
    /// # Errors
    /// What is missing.
    pub fn check() -> Result<(), String> {
        for (program, package) in [
            ("mkfs.ext4", "e2fsprogs"),
            ("losetup", "mount"),
            ("mount", "mount"),
            ("unshare", "util-linux"),
            ("nsenter", "util-linux"),
        ] {
            if !is_installed(program) {
                return Err(format!("`{program}` is missing; apt-get install {package}"));
            }
        }
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = Self::try_mount(folder.path());
        disk.map(drop)
            .map_err(|why| format!("{why} (loop devices and mounts need root)"))
    }

    /// Makes a disk in a folder and mounts it.
    ///
    /// # Panics
    /// Where [`LoopDisk::check`] says that it cannot be.
    #[must_use]
    pub fn mount(folder: &Path) -> Self {
        Self::try_mount(folder).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_mount(folder: &Path) -> Result<Self, String> {
        let (image, at) = (folder.join("disk.img"), folder.join("disk"));
        let made = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        made.and_then(|()| std::fs::create_dir_all(&at))
            .map_err(|error| error.to_string())?;
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F"])
            .arg(&image)
            .stderr(Stdio::null())
            .stdin(Stdio::null());
        match mkfs.status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("mkfs.ext4 ended with {status}")),
            Err(error) => return Err(format!("mkfs.ext4: {error}")),
        }
        let mut keeper = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", KEEPER, "sh"])
            .args([&image, &at])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let tell = keeper.stdin.take();
        let told = BufReader::new(keeper.stdout.take().expect("it is piped"));
        let mut disk = Self {
            keeper,
            tell,
            told,
            at,
        };
        if disk.is_told_ready() {
            Ok(disk)
        } else {
            Err("no loop device can be mounted".to_owned())
        }
    }

    /// Where it is, for what is started through [`LoopDisk::command`].
    #[must_use]
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Where it is for everybody else.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.keeper.id());
        let below = self.at.strip_prefix("/").unwrap_or(&self.at);
        Path::new(&root).join(below)
    }

    /// Gives the command through which a process that is to see the disk is started.
    #[must_use]
    pub fn command(&self) -> Vec<OsString> {
        let keeper = self.keeper.id().to_string();
        ["nsenter", "-t", &keeper, "-m"]
            .map(OsString::from)
            .to_vec()
    }

    /// Cuts the power: from now on every read that is not cached and every write fails, and what was
    /// not synced never happened.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn cut(&self) {
        let disk = File::open(self.outside()).expect("the disk is there");
        shut_down(&disk).expect("ext4 can be shut down");
    }

    /// Gives the power back: the file system is mounted anew, from what the device holds. Whoever had a
    /// file on it has ended.
    ///
    /// # Panics
    /// When somebody has not, or it does not mount.
    pub fn restore(&mut self) {
        let tell = self.tell.as_mut().expect("the keeper listens");
        tell.write_all(b"again\n").expect("the keeper listens");
        assert!(self.is_told_ready(), "it does not mount again");
    }

    fn is_told_ready(&mut self) -> bool {
        let mut line = String::new();
        self.told
            .read_line(&mut line)
            .is_ok_and(|_| line == "ready\n")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // It clears away when its input ends.
        drop(self.tell.take());
        drop(self.keeper.wait());
    }
}

/// Shuts an ext4 down as a power cut does: nothing that is in memory is written, not even its journal.
fn shut_down(disk: &File) -> std::io::Result<()> {
    /// `EXT4_IOC_SHUTDOWN`, the same number as XFS's.
    const SHUTDOWN: ioctl::Opcode = opcode::read::<u32>(b'X', 125);
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
    const NOLOGFLUSH: u32 = 2;
    #[expect(
        unsafe_code,
        reason = "no safe call shuts a file system down; the kernel only reads the number"
    )]
    // SAFETY: the call reads one `u32` by the pointer, which is what is passed.
    let shut = unsafe { ioctl::ioctl(disk, Setter::<SHUTDOWN, u32>::new(NOLOGFLUSH)) };
    shut.map_err(std::io::Error::from)
}
