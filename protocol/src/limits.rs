//! A limit on everything that the wire can claim, in one place, relations among them asserted.

/// Longest payload of one MySQL packet; longer ones continue in the next packet (protocol manual, "Packets").
pub const MYSQL_PACKET_MAX: usize = 0xff_ffff;

/// Largest binlog event that is put together from split packets: the protocol's own `max_allowed_packet` ceiling.
pub const MYSQL_EVENT_MAX: usize = 1 << 30;

/// Largest window of a zstd frame inside a compressed packet, as a power of two: what one packet can hold.
pub const MYSQL_ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Largest message of PostgreSQL's protocol: the server allocates no more for one (`MaxAllocSize`), plus headers.
pub const POSTGRES_MESSAGE_MAX: usize = (1 << 30) + (1 << 16);

/// Columns of one table (MySQL allows 4096, PostgreSQL 1600).
pub const COLUMNS_MAX: usize = 4096;

/// Nesting of MySQL's JSON (the server's own limit is 100).
pub const JSON_DEPTH_MAX: usize = 128;

/// Dimensions of a PostgreSQL array (the server's own `MAXDIM`).
pub const POSTGRES_ARRAY_DIMENSIONS_MAX: usize = 6;

/// Longest name of a binlog file with its path (the server's FN_REFLEN).
pub const BINLOG_FILE_NAME_MAX: usize = 512;

/// Largest Kafka record batch that we decode.
pub const KAFKA_BATCH_MAX: usize = 1 << 30;

/// Uncompressed bytes that one Kafka record batch may expand to before decoding stops.
pub const KAFKA_BATCH_UNCOMPRESSED_MAX: usize = 1 << 30;

const _: () = assert!(MYSQL_PACKET_MAX < MYSQL_EVENT_MAX);
const _: () = assert!(MYSQL_PACKET_MAX < 1 << MYSQL_ZSTD_WINDOW_LOG_MAX);
const _: () = assert!(
    MYSQL_EVENT_MAX < u32::MAX as usize,
    "spans are 32 bits wide"
);
const _: () = assert!(
    POSTGRES_MESSAGE_MAX < u32::MAX as usize,
    "spans are 32 bits wide"
);
const _: () = assert!(KAFKA_BATCH_MAX <= KAFKA_BATCH_UNCOMPRESSED_MAX);
