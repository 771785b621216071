//! Where the demo runs: a folder of its own, a server and a destination as processes of their own.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

use super::api::Api;
use super::screen::{Paper, WIDTH_MAX};
use super::{DESTINATIONS, Destination};
use crate::config::{Surroundings as _, System};
use crate::supervise;

/// How long the server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How much of a process's output is shown when it failed.
const TAIL_LINES: usize = 8;

/// What the demo takes from its environment.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// This program: the server and the destination are runs of it.
    pub(crate) program: PathBuf,
    /// Where temporary files go.
    pub(crate) temporary: PathBuf,
    /// What to draw on; nothing where the output is no terminal.
    pub(crate) paper: Option<Paper>,
    /// Settings of another server, which the demo's must not inherit.
    foreign: Vec<String>,
}

/// Looks at the environment, through the configuration's door.
///
/// # Errors
/// Fails where the system does not tell which program this is.
pub(crate) fn surroundings() -> io::Result<Surroundings> {
    let variable = |name: &str| System.variable(name).filter(|value| !value.is_empty());
    let width = variable("COLUMNS").and_then(|columns| columns.parse().ok());
    let dumb = variable("TERM").is_none_or(|terminal| terminal == "dumb");
    let paper = Paper {
        width: width.unwrap_or(WIDTH_MAX).clamp(20, WIDTH_MAX),
        colour: variable("NO_COLOR").is_none(),
    };
    Ok(Surroundings {
        program: std::env::current_exe()?,
        temporary: std::env::temp_dir(),
        paper: (io::stdout().is_terminal() && !dumb).then_some(paper),
        foreign: System.variables("WAYSTATION_").into_keys().collect(),
    })
}

/// A process that ends with the value, unless it is let go.
#[derive(Debug)]
struct Process(Option<Child>);

impl Process {
    fn id(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.0.as_mut().map(Child::try_wait);
        matches!(ended, Some(Ok(Some(_))))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended by itself, which is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The folder and the two processes. All of it goes with the value, unless it is kept.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder with the configuration, the store and the logs.
    pub(crate) folder: PathBuf,
    /// The server's base URL.
    pub(crate) server: String,
    /// The base URL of the destination's control endpoint.
    pub(crate) control: String,
    keep_folder: bool,
    server_process: Option<Process>,
    flaky_process: Option<Process>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server_process = None;
        self.flaky_process = None;
        if !self.keep_folder {
            // What cannot be removed is in the system's temporary folder, where it will be.
            drop(fs::remove_dir_all(&self.folder));
        }
    }
}

impl Place {
    /// Makes the folder and starts the destination; the server is not up yet.
    ///
    /// # Errors
    /// Says what could not be made or started; nothing is left behind then.
    pub(crate) async fn open(around: &Surroundings, run: &str) -> anyhow::Result<Self> {
        let folder = around.temporary.join(format!("waystation-demo-{run}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let mut place = Self {
            folder,
            server: String::new(),
            control: String::new(),
            keep_folder: false,
            server_process: None,
            flaky_process: None,
        };
        let line = place.start_flaky(around).await?;
        let urls: Vec<&str> = line
            .split_whitespace()
            .filter(|word| word.starts_with("http://"))
            .collect();
        let Some((control, urls)) = urls.split_last() else {
            bail!("the destination did not say where it listens: {line}");
        };
        place.control = (*control).to_owned();
        let listen = free_address()?;
        place.server = format!("http://{listen}");
        let text = configuration(listen, &place.folder, urls);
        fs::write(place.configuration_file(), text)?;
        Ok(place)
    }

    /// Starts the server and waits until it takes work.
    ///
    /// # Errors
    /// Gives the end of the server's own output when it ends or is not ready in time.
    pub(crate) async fn start_server(&mut self, around: &Surroundings) -> anyhow::Result<()> {
        let mut command = self.command(around, "server.log")?;
        command
            .arg("serve")
            .arg("--config")
            .arg(self.configuration_file())
            .current_dir(&self.folder);
        let child = command.spawn().context("cannot start the server")?;
        let process = self.server_process.insert(Process(Some(child)));
        let api = Api::new(&self.server, &self.control)?;
        let started = Instant::now();
        while !api.is_ready().await {
            if process.has_ended() {
                bail!(
                    "the server ended at once:\n{}",
                    tail(&self.folder, "server.log")
                );
            }
            if started.elapsed() > READY_WITHIN {
                bail!(
                    "the server is not ready:\n{}",
                    tail(&self.folder, "server.log")
                );
            }
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Keeps the folder when the value goes.
    pub(crate) const fn keep_folder(&mut self) {
        self.keep_folder = true;
    }

    /// Leaves everything as it is and gives the ids of the processes that run on.
    pub(crate) fn let_go(mut self) -> Vec<u32> {
        self.keep_folder = true;
        let mut ids = Vec::new();
        let processes = [&mut self.server_process, &mut self.flaky_process];
        for process in processes.into_iter().flatten() {
            ids.extend(process.id());
            process.0 = None;
        }
        ids
    }

    fn configuration_file(&self) -> PathBuf {
        self.folder.join("waystation.toml")
    }

    async fn start_flaky(&mut self, around: &Surroundings) -> anyhow::Result<String> {
        let mut command = self.command(around, "destination.log")?;
        command.arg("flaky").stdout(Stdio::piped());
        command.args(["--latency", "2ms", "--latency-jitter", "4ms"]);
        for destination in &DESTINATIONS {
            let name = destination.name;
            command.args(["--listen", &format!("{name}=127.0.0.1:0")]);
            command.args(["--on", &format!("{name}=fail={}", destination.fail)]);
        }
        let mut child = command.spawn().context("cannot start the destination")?;
        let out = child.stdout.take().context("its output is piped")?;
        self.flaky_process = Some(Process(Some(child)));
        let read = move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).map(|_| line)
        };
        let line = supervise::read(read).await??;
        if line.is_empty() {
            let tail = tail(&self.folder, "destination.log");
            bail!("the destination ended at once:\n{tail}");
        }
        Ok(line)
    }

    fn command(&self, around: &Surroundings, log: &str) -> anyhow::Result<Command> {
        let log = File::create(self.folder.join(log))?;
        let mut command = Command::new(&around.program);
        // A group of their own: what the terminal sends reaches the demo, which ends them in order,
        // and does not reach those that were kept.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for name in &around.foreign {
            command.env_remove(name);
        }
        Ok(command)
    }
}

/// Asks the system for a port nobody has. Somebody may take it before the server does; the server
/// then says so, and the next run gets another.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Writes the configuration: three kinds, three destinations, circuits short enough for a minute.
fn configuration(listen: SocketAddr, folder: &Path, urls: &[&str]) -> String {
    let store = folder.join("waystation.db");
    let mut text = format!(
        "[server]\nlisten = \"{listen}\"\n\n[store]\nurl = \"sqlite://{}\"\n",
        store.display()
    );
    for (Destination { name, kind, .. }, url) in DESTINATIONS.iter().zip(urls) {
        text.push_str(&format!(
            "\n[destinations.{name}]\n\
             url = \"{url}\"\n\
             concurrency = 32\n\
             timeout = {{ connect = \"1s\", request = \"5s\" }}\n\
             circuit = {{ consecutive = 5, window = \"10s\", open_for = \"2s\", ramp = \"4s\" }}\n\
             \n[kinds.\"{kind}\"]\n\
             destination = \"{name}\"\n\
             path = \"/{kind}\"\n\
             attempt_timeout = \"5s\"\n\
             backoff = {{ schedule = [\"500ms\", \"1s\", \"2s\", \"5s\"], jitter = \"equal\" }}\n"
        ));
    }
    text
}

fn tail(folder: &Path, log: &str) -> String {
    let text = fs::read_to_string(folder.join(log)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    let tail: Vec<&str> = lines.into_iter().skip(skipped).collect();
    tail.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_that_routes_each_kind_to_its_destination() {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 3_000));
        let urls = [
            "http://127.0.0.1:1",
            "http://127.0.0.1:2",
            "http://127.0.0.1:3",
        ];
        let text = configuration(listen, Path::new("/tmp/demo"), &urls);
        let read: toml::Table = text.parse().expect("it is well formed");
        assert_eq!(
            read["store"]["url"].as_str(),
            Some("sqlite:///tmp/demo/waystation.db")
        );
        for (destination, url) in DESTINATIONS.iter().zip(urls) {
            let kind = &read["kinds"][destination.kind];
            assert_eq!(kind["destination"].as_str(), Some(destination.name));
            let known = &read["destinations"][destination.name];
            assert_eq!(known["url"].as_str(), Some(url));
            assert_eq!(known["circuit"]["open_for"].as_str(), Some("2s"));
        }
    }
}
