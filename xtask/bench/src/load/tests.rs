//! The load generator against servers of a few lines.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LASTING: Duration = Duration::from_millis(50);

/// Answers each request of four bytes; closes after `per_connection` answers.
async fn serve(answer: &'static str, per_connection: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, answer, per_connection));
        }
    });
    address
}

async fn converse(mut stream: TcpStream, answer: &'static str, per_connection: usize) {
    let mut request = [0; 4];
    for _ in 0..per_connection {
        if stream.read_exact(&mut request).await.is_err() {
            return;
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn target(address: SocketAddr) -> Target {
    Target {
        address,
        write: Arc::new(|_, buffer| buffer.extend_from_slice(b"ping")),
        connections: 3,
    }
}

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn a_closed_loop_counts_every_answer_by_its_status() {
    let address = serve(ACCEPTED, usize::MAX).await;
    let outcome = closed_loop(&target(address), Duration::ZERO, LASTING)
        .await
        .unwrap();
    assert!(outcome.statuses[&202] > 0);
    assert_eq!(outcome.statuses[&202], outcome.latencies.total());
    assert_eq!(outcome.broken, 0);
    assert!(outcome.rate(202) > 0.0 && outcome.rate(503) == 0.0);
}

#[tokio::test]
async fn a_connection_that_breaks_is_counted_and_opened_again() {
    let address = serve(ACCEPTED, 2).await;
    let outcome = closed_loop(&target(address), Duration::ZERO, LASTING)
        .await
        .unwrap();
    assert!(outcome.broken > 0);
    assert!(
        outcome.statuses[&202] > 6,
        "only the first connections answered"
    );
}

#[tokio::test]
async fn an_open_loop_sends_as_many_as_the_rate_asks_for() {
    let address = serve(ACCEPTED, usize::MAX).await;
    let outcome = open_loop(&target(address), 2_000.0, LASTING).await.unwrap();
    assert_eq!(outcome.statuses[&202], 100);
    assert!(outcome.took >= LASTING - Duration::from_millis(1));
}

#[tokio::test]
async fn an_open_loop_counts_the_waiting_for_a_slow_server() {
    // One connection that answers nothing until its 50 requests are all due: the first of them
    // was meant to start 25 ms earlier, and that is its latency.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(25)).await;
        converse(stream, ACCEPTED, usize::MAX).await;
    });
    let mut target = target(address);
    target.connections = 1;
    let outcome = open_loop(&target, 2_000.0, Duration::from_millis(25))
        .await
        .unwrap();
    assert_eq!(outcome.latencies.total(), 50);
    assert!(outcome.latencies.percentile(50.0) >= Duration::from_millis(10));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(
        closed_loop(&target(address), Duration::ZERO, LASTING)
            .await
            .is_err()
    );
}
