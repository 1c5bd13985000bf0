//! One connection of the client's: requests one after the other, then perhaps an upgraded socket. Called by
//! [`super::serve`].

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http::{self, Message};
use super::pour::{Pour, Way};
use super::{Act, Bells, SEEN_MAX, Seen, Shared};

/// Bytes read at once from an upgraded socket.
const CHUNK_BYTES: usize = 16 * 1024;

/// Serves until either end is done. What goes wrong ends the connection, as it would in life.
pub(super) async fn run(client: TcpStream, shared: &Arc<Shared>, born: u64) {
    let scene = shared.scene.subscribe();
    let mut up = Pour::new(scene.clone(), born, Way::Up);
    let mut down = Pour::new(scene, born, Way::Down);
    // What went wrong is seen by the two ends; the proxy has nobody to tell.
    let _ = talk(client, shared, &mut up, &mut down).await;
    // An end is news, too: it gets through when bytes would.
    up.passage().await;
    down.passage().await;
}

async fn talk(client: TcpStream, shared: &Arc<Shared>, up: &mut Pour, down: &mut Pour) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (client_in, mut client_out) = client.into_split();
    let mut client_in = BufReader::new(client_in);
    let mut office: Option<(BufReader<_>, _)> = None;
    while let Some(request) = http::request(&mut client_in).await? {
        let number = note(shared, &request);
        let act = spring(shared, &request.line());
        match act.clone() {
            Some(Act::CutRequest) => return Ok(()),
            Some(Act::Answer {
                status,
                content_type,
                headers,
                body,
            }) => {
                up.passage().await;
                let bytes = own_answer(status, content_type, &headers, &body);
                answered(shared, number, Some(status));
                down.pour(&bytes, &mut client_out).await?;
                continue;
            }
            Some(Act::Twice) => {
                let (mut from, mut to) = connect(shared).await?;
                up.pour(&request.bytes(), &mut to).await?;
                http::answer(&mut from, is_head(&request)).await?;
            }
            Some(act @ (Act::Delay(_) | Act::AfterNext(_) | Act::Hold)) => hold(shared, act).await,
            Some(Act::CutAnswer(_)) | None => {}
        }
        if office.is_none() {
            office = Some(connect(shared).await?);
        }
        let Some((office_in, office_out)) = &mut office else {
            return Ok(());
        };
        up.pour(&request.bytes(), office_out).await?;
        let answer = http::answer(office_in, is_head(&request)).await?;
        let status = answer.status();
        if let Some(Act::CutAnswer(bytes)) = act {
            answered(shared, number, None);
            let whole = answer.bytes();
            return down.pour(&whole[..bytes.min(whole.len())], &mut client_out).await;
        }
        answered(shared, number, status);
        down.pour(&answer.bytes(), &mut client_out).await?;
        if status == Some(101) {
            shared.log().counts.upgrades += 1;
            return upgraded(
                shared,
                (&mut client_in, &mut client_out),
                (office_in, office_out),
                up,
                down,
            )
            .await;
        }
        if answer.until_end {
            return Ok(());
        }
    }
    Ok(())
}

/// A socket of the upgraded kind: bytes up as they come, frames down one by one.
async fn upgraded(
    shared: &Arc<Shared>,
    client: (
        &mut BufReader<impl AsyncRead + Unpin>,
        &mut (impl AsyncWrite + Unpin),
    ),
    office: (
        &mut BufReader<impl AsyncRead + Unpin>,
        &mut (impl AsyncWrite + Unpin),
    ),
    up: &mut Pour,
    down: &mut Pour,
) -> io::Result<()> {
    let (client_in, client_out) = client;
    let (office_in, office_out) = office;
    let upwards = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = client_in.read(&mut chunk).await?;
            if read == 0 {
                up.passage().await;
                return io::Result::Ok(());
            }
            up.pour(&chunk[..read], office_out).await?;
        }
    };
    let downwards = async {
        loop {
            let (frame, header) = match http::frame(office_in).await {
                Ok(frame) => frame,
                Err(_) => {
                    down.passage().await;
                    return io::Result::Ok(());
                }
            };
            let times = if http::is_bell(&frame, header) {
                rings(shared, down.bells())
            } else {
                1
            };
            for _ in 0..times {
                down.pour(&frame, client_out).await?;
            }
        }
    };
    tokio::select! {
        ended = upwards => ended,
        ended = downwards => ended,
    }
}

fn rings(shared: &Shared, bells: Bells) -> usize {
    let mut log = shared.log();
    let times = match bells {
        Bells::Ring => 1,
        Bells::Lost => 0,
        Bells::Twice => 2,
    };
    log.counts.bells_lost += u64::from(times == 0);
    log.counts.bells_rung += u64::from(times > 0);
    times
}

async fn connect(
    shared: &Shared,
) -> io::Result<(
    BufReader<tokio::net::tcp::OwnedReadHalf>,
    tokio::net::tcp::OwnedWriteHalf,
)> {
    let stream = TcpStream::connect(shared.target()).await?;
    stream.set_nodelay(true)?;
    let (from, to) = stream.into_split();
    Ok((BufReader::new(from), to))
}

fn is_head(request: &Message) -> bool {
    request.line().starts_with("HEAD ")
}

/// Remembers a request; returns its place in the log, if there is room.
fn note(shared: &Shared, request: &Message) -> Option<usize> {
    let mut log = shared.log();
    log.counts.requests += 1;
    if log.seen.len() >= SEEN_MAX {
        return None;
    }
    log.seen.push(Seen {
        line: request.line(),
        status: None,
    });
    Some(log.seen.len() - 1)
}

fn answered(shared: &Shared, number: Option<usize>, status: Option<u16>) {
    if let Some(number) = number {
        shared.log().seen[number].status = status;
    }
    shared.answered.send_modify(|count| *count += 1);
}

/// The act of the first trap that waits for this request.
fn spring(shared: &Shared, line: &str) -> Option<Act> {
    let mut log = shared.log();
    let place = log
        .traps
        .iter()
        .position(|trap| trap.left > 0 && line.contains(&trap.part))?;
    log.counts.trapped += 1;
    let trap = &mut log.traps[place];
    trap.left -= 1;
    let act = trap.act.clone();
    if trap.left == 0 {
        log.traps.remove(place);
    }
    Some(act)
}

async fn hold(shared: &Shared, act: Act) {
    match act {
        Act::Delay(delay) => tokio::time::sleep(delay).await,
        Act::AfterNext(limit) => {
            let mut others = shared.answered.subscribe();
            others.mark_unchanged();
            // Nobody else may come: then it goes on when its time is over.
            let _ = timeout(limit, others.changed()).await;
        }
        Act::Hold => {
            let mut scene = shared.scene.subscribe();
            let held = scene.borrow().released;
            // The sender lives as long as the proxy.
            let _ = scene.wait_for(|scene| scene.released > held).await;
        }
        Act::CutRequest | Act::CutAnswer(_) | Act::Twice | Act::Answer { .. } => {}
    }
}

fn own_answer(status: u16, content_type: &str, headers: &[String], body: &str) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {status} In Between\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for line in headers {
        head.push_str(line);
        head.push_str("\r\n");
    }
    format!("{head}\r\n{body}").into_bytes()
}
