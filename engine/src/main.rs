//! `walbrook`: change data capture from MySQL and MariaDB into Apache Kafka.
#![forbid(unsafe_code)]

fn main() {}
