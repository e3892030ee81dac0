/**
 * Snapshots' descriptions (index, term, members) as bytes, on the wire and on disk.
 */
import { type ByteReader, type ByteWriter, Malformed, U48_BYTES } from './bytes.ts';
import type { ConfigState, Snapshot } from './core/types.ts';

function configBytes(config: ConfigState): number {
  const ids =
    config.voters.length + config.votersOutgoing.length + config.learners.length + config.learnersNext.length;
  return 4 * 4 + ids * U48_BYTES + 1;
}

function writeConfig(writer: ByteWriter, config: ConfigState): void {
  for (const ids of [config.voters, config.votersOutgoing, config.learners, config.learnersNext]) {
    writer.u32(ids.length);
    for (const id of ids) writer.u48(id);
  }
  writer.u8(config.autoLeave ? 1 : 0);
}

function readConfig(reader: ByteReader): ConfigState {
  const ids = (): number[] => {
    const count = reader.u32();
    if (count * U48_BYTES > reader.left) throw new Malformed();
    return Array.from({ length: count }, () => reader.u48());
  };
  const [voters, votersOutgoing, learners, learnersNext] = [ids(), ids(), ids(), ids()];
  return { voters, votersOutgoing, learners, learnersNext, autoLeave: reader.u8() === 1 };
}

/** Length of what {@link writeSnapshot} writes. */
export function snapshotBytes(snapshot: Snapshot): number {
  return 2 * U48_BYTES + configBytes(snapshot.config) + 4 + snapshot.data.length;
}

/** Writes a snapshot's description. */
export function writeSnapshot(writer: ByteWriter, snapshot: Snapshot): void {
  writer.u48(snapshot.index);
  writer.u48(snapshot.term);
  writeConfig(writer, snapshot.config);
  writer.u32(snapshot.data.length);
  writer.raw(snapshot.data);
}

/** Reads a snapshot's description. */
export function readSnapshot(reader: ByteReader): Snapshot {
  const index = reader.u48();
  const term = reader.u48();
  const config = readConfig(reader);
  return { index, term, config, data: reader.raw(reader.u32()) };
}
