//! One keep-alive HTTP/1.1 connection that does the least a client can: write, read, look at the status.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer's head may have this many bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A connection that carries one request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
}

impl Connection {
    /// Connects, with Nagle's algorithm off.
    ///
    /// # Errors
    /// Says why not.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot connect")?;
        stream
            .set_nodelay(true)
            .context("cannot switch Nagle off")?;
        Ok(Self {
            stream,
            buffer: vec![0; HEAD_BYTES_MAX],
            filled: 0,
        })
    }

    /// Sends one request and waits for the whole answer; gives its status and body.
    ///
    /// # Errors
    /// Says what broke; the connection is of no more use then.
    pub async fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream
            .write_all(request)
            .await
            .context("cannot write")?;
        self.filled = 0;
        let head = loop {
            self.fill().await?;
            if let Some(head) = parse(&self.buffer[..self.filled])? {
                break head;
            }
            if self.filled == self.buffer.len() {
                bail!("the head of the answer has more than {HEAD_BYTES_MAX} bytes");
            }
        };
        let whole = head.head_bytes + head.body_bytes;
        if self.buffer.len() < whole {
            self.buffer.resize(whole, 0);
        }
        while self.filled < whole {
            self.fill().await?;
        }
        Ok((head.status, &self.buffer[head.head_bytes..whole]))
    }

    async fn fill(&mut self) -> Result<()> {
        let read = self.stream.read(&mut self.buffer[self.filled..]).await;
        match read.context("cannot read")? {
            0 => bail!("the server closed the connection"),
            count => self.filled += count,
        }
        Ok(())
    }
}

/// Reads the head of an answer; none while it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).context("the head of the answer is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status
        .and_then(|word| word.parse().ok())
        .context("the answer has no status")?;
    let mut body_bytes = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = Some(
                value
                    .trim()
                    .parse()
                    .context("the answer's length is no number")?,
            );
        }
    }
    Ok(Some(Head {
        status,
        head_bytes: end + 4,
        body_bytes: body_bytes.context("the answer says no content-length")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let head = |status, head_bytes, body_bytes| {
            Some(Head {
                status,
                head_bytes,
                body_bytes,
            })
        };
        for (text, expected) in [
            (
                "HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello",
                head(202, 44, 5),
            ),
            (
                "HTTP/1.1 503 X\r\ncontent-length:0\r\n\r\n",
                head(503, 36, 0),
            ),
            ("HTTP/1.1 202 Accepted\r\nContent-Le", None),
        ] {
            assert_eq!(
                parse(text.as_bytes()).expect("it is an answer"),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_with_a_length_is_an_error() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
