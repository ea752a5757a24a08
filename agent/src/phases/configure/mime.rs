//! MIME as nodeadm reads it, which is as Go's `net/mail` and `mime/multipart` do: strict in the
//! boundaries and the headers of parts, and a document without its closing boundary is broken.

/// Headers by lower-case name, in order.
type Headers = Vec<(String, String)>;

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its media type in lower case; none where it has no `Content-Type`.
    pub media_type: Option<String>,
    /// Its content, with quoted-printable taken off.
    pub content: Vec<u8>,
}

/// The boundary, and where the body begins, when the document is multipart.
///
/// A document whose headers do not say so is something else, and never an error.
#[must_use]
pub fn multipart(bytes: &[u8]) -> Option<(String, &[u8])> {
    if bytes.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        return None;
    }
    let (headers, body) = headers(bytes, |_| true)?;
    let (kind, parameters) = media_type(value(&headers, "content-type")?).ok()?;
    let boundary = value(&parameters, "boundary").unwrap_or_default();
    kind.starts_with("multipart/").then(|| (boundary.to_owned(), body))
}

/// The parts of a multipart body, in order.
///
/// # Errors
/// When it is cut off, or a part's head is malformed: nodeadm stops at both.
pub fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, String> {
    if boundary.is_empty() {
        return Err("the multipart header names no boundary".into());
    }
    let delimiter = format!("--{boundary}");
    let (start, newline) = first(body, &delimiter)?;
    let Some(mut rest) = start else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    loop {
        let (content, after) = until(rest, newline, &delimiter).ok_or_else(|| {
            format!("it is cut off: the closing boundary `{delimiter}--` is missing")
        })?;
        found.push(part(content)?);
        let line = &after[..line_end(after)];
        let tail = &line[delimiter.len()..];
        if is_blank(tail, newline) && line.ends_with(newline) {
            rest = &after[line.len()..];
        } else if tail.starts_with(b"--") {
            return Ok(found);
        } else {
            return Err(format!("unexpected line `{}`", String::from_utf8_lossy(line).trim_end()));
        }
    }
}

/// Where the first part begins, and what ends a line from then on. None: the parts end before one
/// has begun.
fn first<'a>(body: &'a [u8], delimiter: &str) -> Result<(Option<&'a [u8]>, &'static [u8]), String> {
    let mut rest = body;
    while !rest.is_empty() {
        let line = &rest[..line_end(rest)];
        let after = &rest[line.len()..];
        if let Some(tail) = line.strip_prefix(delimiter.as_bytes()) {
            if is_blank(tail, b"\r\n") && line.ends_with(b"\r\n") {
                return Ok((Some(after), b"\r\n"));
            }
            if is_blank(tail, b"\n") && line.ends_with(b"\n") {
                return Ok((Some(after), b"\n"));
            }
            if tail.strip_prefix(b"--").is_some_and(|tail| is_blank(tail, b"\n")) {
                return Ok((None, b"\n"));
            }
        }
        rest = after;
    }
    Err(format!("no boundary `{delimiter}` in it"))
}

/// Splits at the next boundary: the content before its line break, and from the boundary on.
fn until<'a>(rest: &'a [u8], newline: &[u8], delimiter: &str) -> Option<(&'a [u8], &'a [u8])> {
    let ends = |at: usize| match rest.get(at..) {
        None | Some([]) => true,
        Some([b' ' | b'\t' | b'\r' | b'\n', ..] | [b'-', b'-', ..]) => true,
        Some(_) => false,
    };
    if rest.starts_with(delimiter.as_bytes()) && ends(delimiter.len()) {
        return Some((&[], rest));
    }
    let mark = [newline, delimiter.as_bytes()].concat();
    let mut from = 0;
    loop {
        let at = from + find(&rest[from..], &mark)?;
        if ends(at + mark.len()) {
            return Some((&rest[..at], &rest[at + newline.len()..]));
        }
        from = at + 1;
    }
}

fn part(bytes: &[u8]) -> Result<Part, String> {
    let is_token = |name: &str| !name.is_empty() && name.bytes().all(is_token_byte);
    let (head, content) = headers(bytes, is_token).ok_or("the head of a part is malformed")?;
    let kind = value(&head, "content-type").filter(|value| !value.is_empty());
    let media_type = match kind {
        Some(text) => Some(media_type(text).map_err(|()| format!("`{text}` is no media type"))?.0),
        None => None,
    };
    let encoding = value(&head, "content-transfer-encoding").unwrap_or_default();
    let content = match encoding.eq_ignore_ascii_case("quoted-printable") {
        true => quoted_printable(content),
        false => content.to_vec(),
    };
    Ok(Part { media_type, content })
}

/// Headers up to the blank line, folded lines joined. None when a line is none.
fn headers(bytes: &[u8], is_name: impl Fn(&str) -> bool) -> Option<(Headers, &[u8])> {
    let mut found: Headers = Vec::new();
    let mut rest = bytes;
    loop {
        let end = line_end(rest);
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end..];
        if line.trim().is_empty() {
            return Some((found, rest));
        }
        if line.starts_with([' ', '\t']) {
            let (_, value) = found.last_mut()?;
            *value = format!("{value} {}", line.trim());
            continue;
        }
        let (name, value) = line.split_once(':')?;
        if !is_name(name) {
            return None;
        }
        found.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn value<'a>(pairs: &'a Headers, name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// `type/subtype; name=value; name="value"`, names in lower case.
fn media_type(text: &str) -> Result<(String, Headers), ()> {
    let (kind, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    let kind = kind.trim().to_ascii_lowercase();
    let (major, minor) = kind.split_once('/').unwrap_or((&kind, "x"));
    if ![major, minor].iter().all(|t| !t.is_empty() && t.bytes().all(is_token_byte)) {
        return Err(());
    }
    let mut parameters: Headers = Vec::new();
    while let Some(after) = rest.trim_start().strip_prefix(';') {
        let after = after.trim_start();
        if after.is_empty() {
            rest = "";
            break;
        }
        let (name, after) = after.split_once('=').ok_or(())?;
        let name = name.to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(());
        }
        let (value, after) = parameter_value(after).ok_or(())?;
        parameters.push((name, value));
        rest = after;
    }
    if rest.trim().is_empty() { Ok((kind, parameters)) } else { Err(()) }
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|b| !is_token_byte(b)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

fn is_blank(tail: &[u8], newline: &[u8]) -> bool {
    let tail = tail.strip_suffix(newline).unwrap_or(tail);
    tail.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

fn line_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// RFC 2045 §6.7: `=XX`, and `=` at the end of a line joins it with the next.
fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'=', [b'\r', b'\n', after @ ..] | [b'\n', after @ ..]) => after,
            (b'=', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                plain.push(hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default());
                after
            }
            _ => {
                plain.push(*byte);
                after
            }
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let (boundary, body) = multipart(text.as_bytes()).ok_or("not multipart")?;
        let text = |part: Part| {
            let kind = part.media_type.unwrap_or_default();
            (kind, String::from_utf8_lossy(&part.content).into_owned())
        };
        Ok(parts(body, &boundary)?.into_iter().map(text).collect())
    }

    const HEAD: &str = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n";

    #[test]
    fn parts_with_their_types() {
        let whole = format!(
            "{HEAD}preamble\n--B\nContent-Type: Text/X; charset=\"us;ascii\"\n\none\n\n--B \n\ntwo\n--Bx\n--B--\nepilogue"
        );
        let expected = vec![("text/x".into(), "one\n".into()), (String::new(), "two\n--Bx".into())];
        assert_eq!(read(&whole), Ok(expected));
        let crlf = whole.replace('\n', "\r\n");
        assert_eq!(read(&crlf).unwrap()[0], ("text/x".into(), "one\r\n".into()));
        let soft =
            format!("{HEAD}--B\nContent-Transfer-Encoding: quoted-printable\n\na=3Db=\nc=\n--B--");
        assert_eq!(read(&soft).unwrap()[0].1, "a=bc=");
        assert_eq!(read(&format!("{HEAD}--B--\n")), Ok(vec![]));
    }

    #[test]
    fn what_is_broken_and_what_is_no_mime() {
        for (text, says) in [
            (format!("{HEAD}--B\n\none"), "cut off"),
            (format!("{HEAD}nothing"), "no boundary"),
            (format!("{HEAD}--B\nno head\n\n--B--"), "malformed"),
            (format!("{HEAD}--B\nContent-Type: a b\n\nx\n--B--"), "no media type"),
            (HEAD.replace("; boundary=\"B\"", ""), "names no boundary"),
            (HEAD.replace("multipart/mixed", "text/plain"), "not multipart"),
            (format!("\n{HEAD}"), "not multipart"),
            ("#!/bin/sh\n".into(), "not multipart"),
            (String::new(), "not multipart"),
        ] {
            let problem = read(&text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }
}
