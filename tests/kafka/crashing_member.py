"""A member of the group in a process of its own, to be killed: reads, stores a part, says so, and waits for its end.

Arguments: the connection as JSON, topic, partition, how many records to read, which offset to store.
"""

import asyncio
import json
import sys

from common.kafka.client import KafkaClient
from common.kafka.settings import KafkaSettings
from tests.brokers import until
from tests.kafka.members import Member


async def main() -> None:
    connection, topic, partition, count, offset = sys.argv[1:]
    client = KafkaClient(KafkaSettings(client_id="crashing", **json.loads(connection)))
    member = Member(finish=False)
    member.consumer = client.group(topic, member, member="seat-1")
    await member.consumer.start()
    await until(lambda: len(member.records) == int(count), "the records")
    member.consumer.store(int(partition), int(offset))
    print("read", flush=True)  # noqa: T201
    await asyncio.sleep(60.0)


if __name__ == "__main__":
    asyncio.run(main())
