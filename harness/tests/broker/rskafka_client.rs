//! rskafka unmodified: topics, records in every codec, offsets.

use std::collections::BTreeMap;

use rskafka::chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::record::Record;

use crate::support::{broker, read_rdkafka, read_rskafka, rskafka};

pub(crate) fn record(id: i64) -> Record {
    Record {
        key: Some(id.to_string().into_bytes()),
        value: (id % 3 != 2).then(|| vec![b'x'; 300]),
        headers: BTreeMap::from([("pos".to_owned(), format!("f:{id}/0").into_bytes())]),
        timestamp: DateTime::<Utc>::from_timestamp_millis(1_700_000_000_000 + id).unwrap(),
    }
}

#[tokio::test]
async fn topics_records_and_offsets() {
    let broker = broker(3).await;
    let client = rskafka(&broker).await;
    let controller = client.controller_client().unwrap();
    controller.create_topic("made", 4, 2, 1000).await.unwrap();
    assert!(
        controller.create_topic("made", 4, 2, 1000).await.is_err(),
        "it exists"
    );
    assert!(
        controller.create_topic("a/b", 1, 1, 1000).await.is_err(),
        "no name for a topic"
    );
    let topics = client.list_topics().await.unwrap();
    let partitions: Vec<_> = topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.partitions.len()))
        .collect();
    assert_eq!(partitions, [("made", 4), ("t", 3)]);

    let codecs = [
        Compression::NoCompression,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for partition in 0..4 {
        let client = client
            .partition_client("made", partition, UnknownTopicHandling::Error)
            .await
            .unwrap();
        for (i, codec) in codecs.into_iter().enumerate() {
            let first = i as i64 * 50;
            let offsets = client
                .produce((first..first + 50).map(record).collect(), codec)
                .await
                .unwrap();
            assert_eq!(offsets, (first..first + 50).collect::<Vec<_>>());
        }
        assert_eq!(client.get_offset(OffsetAt::Latest).await.unwrap(), 250);
        let at = DateTime::<Utc>::from_timestamp_millis(1_700_000_000_120).unwrap();
        assert_eq!(
            client.get_offset(OffsetAt::Timestamp(at)).await.unwrap(),
            120
        );
    }
    let by_rskafka = read_rskafka(&client, "made", 2).await;
    assert_eq!(by_rskafka.len(), 250);
    assert_eq!(by_rskafka[201].key, Some(b"201".to_vec()));
    assert_eq!(by_rskafka[200].value, None);
    assert_eq!(read_rdkafka(&broker, "made", 2).await, by_rskafka);
    controller.delete_topic("made", 1000).await.unwrap();
    assert_eq!(client.list_topics().await.unwrap().len(), 1);
}
