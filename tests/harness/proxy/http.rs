//! As much HTTP/1.1 as is needed to tell one request from the next, and WebSocket frames from each other. Called by
//! [`super::connection`].

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

/// Largest head, body or frame that is read.
const PART_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request or an answer: its head with the empty line, and its body as it came.
pub(super) struct Message {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    /// The body's end is the connection's.
    pub until_end: bool,
}

impl Message {
    /// Everything as it is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), &self.body].concat()
    }

    /// `GET /path` or `HTTP/1.1 200`.
    pub(super) fn line(&self) -> String {
        let text = String::from_utf8_lossy(&self.head);
        let mut words = text.lines().next().unwrap_or_default().split(' ');
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        format!("{first} {second}")
    }

    pub(super) fn status(&self) -> Option<u16> {
        self.line().split(' ').nth(1)?.parse().ok()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads the next request; `None`: the other end has nothing more to say.
pub(super) async fn request<R: AsyncRead + Unpin>(from: &mut BufReader<R>) -> io::Result<Option<Message>> {
    let Some(head) = read_head(from).await? else {
        return Ok(None);
    };
    let (body, _) = read_body(from, &head, false).await?;
    Ok(Some(Message {
        head,
        body,
        until_end: false,
    }))
}

/// Reads the answer to a request. `to_head`: it has no body whatever it says.
pub(super) async fn answer<R: AsyncRead + Unpin>(
    from: &mut BufReader<R>,
    to_head: bool,
) -> io::Result<Message> {
    let head = read_head(from).await?.ok_or_else(|| broken("no answer"))?;
    let mut message = Message {
        head,
        body: Vec::new(),
        until_end: false,
    };
    let status = message.status().unwrap_or_default();
    if !(to_head || matches!(status, 100..=199 | 204 | 304)) {
        (message.body, message.until_end) = read_body(from, &message.head, true).await?;
    }
    Ok(message)
}

async fn read_head<R: AsyncRead + Unpin>(from: &mut BufReader<R>) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match from.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && head.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
        if head.len() > PART_BYTES_MAX {
            return Err(broken("the head is too long"));
        }
    }
    Ok(Some(head))
}

async fn read_body<R: AsyncRead + Unpin>(
    from: &mut BufReader<R>,
    head: &[u8],
    may_end_with_connection: bool,
) -> io::Result<(Vec<u8>, bool)> {
    let head = String::from_utf8_lossy(head);
    let mut body = Vec::new();
    if header(&head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        read_chunks(from, &mut body).await?;
        return Ok((body, false));
    }
    match header(&head, "content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length <= PART_BYTES_MAX => {
            body.resize(length, 0);
            from.read_exact(&mut body).await?;
            Ok((body, false))
        }
        Some(_) => Err(broken("the length makes no sense")),
        None if may_end_with_connection => {
            from.read_to_end(&mut body).await?;
            Ok((body, true))
        }
        None => Ok((body, false)),
    }
}

/// Chunks are kept as they came, sizes and all.
async fn read_chunks<R: AsyncRead + Unpin>(from: &mut BufReader<R>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let start = body.len();
        while !body[start..].ends_with(b"\r\n") {
            body.push(from.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&body[start..]).trim().to_owned();
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
            .map_err(|_| broken("a chunk's size makes no sense"))?;
        if size > PART_BYTES_MAX {
            return Err(broken("a chunk is too long"));
        }
        let begin = body.len();
        body.resize(begin + size + 2, 0);
        from.read_exact(&mut body[begin..]).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Reads the next WebSocket frame of a server (unmasked), header and all; with it the length of its header.
pub(super) async fn frame<R: AsyncRead + Unpin>(from: &mut BufReader<R>) -> io::Result<(Vec<u8>, usize)> {
    let mut bytes = vec![0; 2];
    from.read_exact(&mut bytes).await?;
    let more = match bytes[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    bytes.resize(2 + more, 0);
    from.read_exact(&mut bytes[2..]).await?;
    let length = match more {
        0 => usize::from(bytes[1] & 0x7f),
        _ => bytes[2..]
            .iter()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    if length > PART_BYTES_MAX {
        return Err(broken("a frame is too long"));
    }
    let header = bytes.len();
    bytes.resize(header + length, 0);
    from.read_exact(&mut bytes[header..]).await?;
    Ok((bytes, header))
}

/// Is it a doorbell: a broadcast, in either form of the second serializer?
pub(super) fn is_bell(frame: &[u8], header: usize) -> bool {
    let payload = &frame[header..];
    match frame[0] & 0x0f {
        2 => payload.first() == Some(&4),
        1 => serde_json::from_slice::<serde_json::Value>(payload).is_ok_and(|text| text[3] == "broadcast"),
        _ => false,
    }
}
