//! Start-up and queries against a peer that is written out here.

use tokio::net::{TcpListener, TcpStream};

use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 + 4;
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// One row of one column of text.
fn row(value: &str) -> Vec<u8> {
    let description = [&b"\0\x01a\0"[..], &[0; 18]].concat();
    let length = value.len() as u32;
    let row = [&b"\0\x01"[..], &length.to_be_bytes(), value.as_bytes()].concat();
    [
        message(Backend::ROW_DESCRIPTION, &description),
        message(Backend::DATA_ROW, &row),
        message(Backend::COMMAND_COMPLETE, b"SELECT 1\0"),
        message(Backend::READY_FOR_QUERY, b"I"),
    ]
    .concat()
}

/// A server that answers the first three statements only when it has all of them, the second by `second`, then one alone.
async fn connected(second: Vec<u8>) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap());
    let stream = stream.await.unwrap();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        let mut answers = [row("1"), second, row("3"), row("4")].into_iter();
        for count in [3, 1] {
            for _ in 0..count {
                assert_eq!(peer.read_u8().await.unwrap(), b'Q');
                let length = peer.read_u32().await.unwrap() as usize - 4;
                asked.resize(length, 0);
                peer.read_exact(&mut asked).await.unwrap();
            }
            for answer in answers.by_ref().take(count) {
                peer.write_all(&answer).await.unwrap();
            }
        }
    });
    Connection {
        socket: Socket::Plain(stream),
        round_trip: Duration::ZERO,
        timeout: Duration::from_secs(30),
        incoming: Vec::new(),
    }
}

fn text(answer: &Answer) -> Option<&str> {
    answer.first()?.text("a")
}

/// The server would wait for the second statement for ever if it were sent only after the first one's answer.
#[tokio::test]
async fn several_statements_take_one_round_trip() {
    let mut connection = connected(row("2")).await;
    let answers = connection.query_all(["one", "two", "three"]).await.unwrap();
    assert_eq!(
        answers.each_ref().map(text),
        [Some("1"), Some("2"), Some("3")]
    );
    let last = connection.query("four").await.unwrap();
    assert_eq!(text(&last), Some("4"));
}

/// The server answers only when it has been waited for three times, each longer than other statements may take.
#[tokio::test]
async fn a_patient_query_outlasts_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap());
    let stream = stream.await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    let stream = stream.into_std().unwrap();
    let twin = stream.try_clone().unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    let gives_up = || {
        let time = socket2::SockRef::from(&twin).tcp_user_timeout().unwrap();
        time.filter(|time| !time.is_zero())
    };
    let waited = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let seen = std::sync::Arc::clone(&waited);
    tokio::spawn(async move {
        let _three = seen.acquire_many(3).await.unwrap();
        peer.write_all(&row("1")).await.unwrap();
        // The line stays up.
        std::future::pending::<()>().await;
    });
    let mut connection = Connection {
        socket: Socket::Plain(stream),
        round_trip: Duration::ZERO,
        timeout: Duration::from_millis(1),
        incoming: Vec::new(),
    };
    let every = Duration::from_millis(2);
    let answer = connection.query_patiently("one", every, || {
        assert_eq!(gives_up(), Some(GONE_AFTER));
        waited.add_permits(1);
    });
    assert_eq!(text(&answer.await.unwrap()), Some("1"));
    // What comes then has its own ways to notice.
    assert_eq!(gives_up(), None);
}

/// It is short of memory or processes, which passes.
#[tokio::test]
async fn a_server_that_cannot_fork_is_tried_again() {
    for (mode, doing) in [
        (TlsMode::Disable, "while authenticating"),
        (TlsMode::Prefer, "while starting TLS"),
        (TlsMode::Require, "while starting TLS"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ConnectOptions {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            user: "u".into(),
            password: Secret::default(),
            database: "d".into(),
            tls: SourceTls { mode, ca: None },
            timeout: Duration::from_secs(30),
        };
        let server = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let length = peer.read_u32().await.unwrap() as usize - 4;
            peer.read_exact(&mut vec![0; length]).await.unwrap();
            let words = b"Ecould not fork new process for connection: Cannot allocate memory\n";
            peer.write_all(words).await.unwrap();
        };
        let connected = Connection::connect(&options, Purpose::Queries);
        let (connected, ()) = tokio::join!(connected, server);
        let error = connected.unwrap_err();
        assert_eq!(error.verdict(), crate::source::Verdict::Retry, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(doing) && text.contains("no process"),
            "{text}"
        );
        assert!(!text.contains("could not fork"), "{text}");
    }
}

/// As long as nothing is sent, only these questions tell of a peer that is gone.
#[tokio::test]
async fn a_silent_peer_is_asked_whether_it_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stream, _) = Socket::connect("127.0.0.1", port).await.unwrap();
    let socket = socket2::SockRef::from(&stream);
    assert!(socket.keepalive().unwrap());
    let first = socket.tcp_keepalive_time().unwrap();
    let second = first + socket.tcp_keepalive_interval().unwrap();
    assert!(second < GONE_AFTER, "{second:?}");
}

#[tokio::test]
async fn of_several_statements_the_refused_one_is_named() {
    let fields = b"SERROR\0C42501\0Mpermission denied\0\0";
    let refusal = [
        message(Backend::ERROR_RESPONSE, fields),
        message(Backend::READY_FOR_QUERY, b"I"),
    ];
    let mut connection = connected(refusal.concat()).await;
    let error = connection.query_all(["one", "two", "three"]).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("permission denied") && error.contains("\"two\""),
        "{error}"
    );
    let last = connection.query("four").await.unwrap();
    assert_eq!(text(&last), Some("4"));
}

/// How money is written depends on a setting of each session, how much it is on the database's.
#[tokio::test]
async fn money_is_asked_about_in_a_session_without_its_setting() {
    for (purpose, expected) in [
        (Purpose::Queries, true),
        (Purpose::Replication, true),
        (Purpose::Money, false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ConnectOptions {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
            user: "u".into(),
            password: Secret::default(),
            database: "d".into(),
            tls: SourceTls {
                mode: TlsMode::Disable,
                ca: None,
            },
            timeout: Duration::from_secs(30),
        };
        let server = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let length = peer.read_u32().await.unwrap() as usize - 4;
            let mut start_up = vec![0; length];
            peer.read_exact(&mut start_up).await.unwrap();
            let welcome = [
                message(Backend::AUTHENTICATION, &[0; 4]),
                message(Backend::READY_FOR_QUERY, b"I"),
            ];
            peer.write_all(&welcome.concat()).await.unwrap();
            String::from_utf8_lossy(&start_up).into_owned()
        };
        let connected = Connection::connect(&options, purpose);
        let (connected, start_up) = tokio::join!(connected, server);
        connected.unwrap();
        assert!(start_up.contains("-c datestyle=ISO"), "{start_up}");
        assert_eq!(start_up.contains("lc_monetary"), expected, "{start_up}");
    }
}
