/**
 * Disks that lose what they confirmed: lies, earlier contents, damage, disks that are gone.
 *
 * Consensus cannot survive these anywhere and at any time, so they are limited, and only as far as it must be:
 * 1. Disks that lie, are damaged or gone are fewer than half of the voters at any time.
 * 2. A member whose disk lost what it confirmed starts again only where that cannot matter: its term and vote are
 *    the same, and every entry it lost is a plain one that more than half of the group has without it. Otherwise it
 *    is taken out of the group and comes back as a new member, as OPERATIONS says of a lost disk.
 * Within these limits every invariant holds for everybody, that member included, but that it may end itself when its
 * leader shows it that it forgot entries.
 */
import type { Entry } from '../../src/raft/core/types.ts';
import { type DiskImage, imageOf, lastIndexOf } from './disk.ts';
import type { FaultKind } from './draws.ts';
import type { GroupFaults } from './group-faults.ts';
import type { ManagerHost, World } from './manager-host.ts';

export type DiskFault = Extract<
  FaultKind,
  'fsync-error' | 'disk-full' | 'disk-hang' | 'fsync-lie' | 'set-back-disk' | 'damage-disk' | 'wipe-disk'
>;

function entryOf(image: DiskImage, index: number): Entry | undefined {
  return image.entries[index - image.compactedIndex - 1];
}

/** What happens to the disks of managers. */
export class DiskFaults {
  readonly #world: World;
  readonly #group: GroupFaults;
  readonly #managers: () => readonly ManagerHost[];

  constructor(world: World, group: GroupFaults, managers: () => readonly ManagerHost[]) {
    this.#world = world;
    this.#group = group;
    this.#managers = managers;
  }

  inject(kind: DiskFault, host: ManagerHost): void {
    const { dice, time } = this.#world;
    const { state } = host.disk;
    switch (kind) {
      case 'fsync-error':
        state.fails = 'fsync';
        return;
      case 'disk-full':
        state.fails = 'full';
        return;
      case 'disk-hang':
        state.hangs = true;
        return;
      case 'fsync-lie':
        if (!this.#group.mayLose(host)) return;
        host.disk.lie();
        time.after(dice.below(6_000), null, `power cut ${host.name}`, () => host.crash());
        return;
      case 'set-back-disk':
        host.crash();
        this.#setBack(host, host.disk.images.slice(0, -1));
        return;
      case 'damage-disk': {
        host.crash();
        if (host.disk.memory.memberId === null || !this.#group.mayLose(host)) return;
        const [record, other, bit] = [
          dice.below(1_000) / 1_000,
          dice.below(1_000) / 1_000,
          dice.below(1_000) / 1_000,
        ];
        host.disk.damage = {
          kind: dice.oneOf('bit-flip', 'dropped-record', 'misdirected-write'),
          record,
          other,
          bit,
        };
        return;
      }
      case 'wipe-disk':
        if (this.#group.mayLose(host)) this.#group.lose(host, 'its disk is gone');
        return;
    }
  }

  /** The process of a manager died, and its machine with it. */
  powerLost(host: ManagerHost): void {
    const { disk } = host;
    if (!disk.lies || host.isRetired || host.isLost) return;
    const lied = disk.lied;
    disk.lied = [];
    this.#setBack(host, lied);
  }

  /** Every disk keeps what it says it keeps from now on. */
  heal(): void {
    for (const { disk } of this.#managers()) disk.lied = [];
  }

  /** Puts one of `images` in place of the present content of a disk whose process is down. */
  #setBack(host: ManagerHost, images: readonly DiskImage[]): void {
    const { dice, note } = this.#world;
    const now = imageOf(host.disk.memory);
    const harmless = images.filter((image) => this.#isHarmless(host, image, now));
    const unnoticed = dice.chance(700) ? dice.pick(harmless) : undefined;
    // It may find out, and then it is lost.
    if (unnoticed !== undefined && this.#group.mayLose(host)) {
      note(
        `${host.name}: disk set back from entry ${lastIndexOf(now)} to ${lastIndexOf(unnoticed)}, unnoticed`,
      );
      host.disk.setBack(unnoticed);
      return;
    }
    if (images.length > 0 && this.#group.mayLose(host))
      this.#group.lose(host, 'its disk lost what it confirmed');
  }

  /** Whether nobody relies on what would be forgotten. */
  #isHarmless(host: ManagerHost, image: DiskImage, now: DiskImage): boolean {
    if (image.memberId === null || image.memberId !== now.memberId) return false;
    if (image.hardState.term !== now.hardState.term || image.hardState.vote !== now.hardState.vote)
      return false;
    if (lastIndexOf(image) < now.compactedIndex) return false;
    const from = Math.max(now.compactedIndex, image.compactedIndex);
    for (let index = from + 1; index <= lastIndexOf(now); index++) {
      const entry = entryOf(now, index);
      if (entry === undefined) return false;
      const isKept = entryOf(image, index)?.term === entry.term;
      // A change of the group must not be forgotten, nor that it is committed.
      if (entry.kind === 'config' && (!isKept || index > image.hardState.commit)) return false;
      if (!isKept && !this.#isHeldWithout(host, entry)) return false;
    }
    return true;
  }

  #isHeldWithout(host: ManagerHost, { index, term }: Entry): boolean {
    const managers = this.#managers();
    const size = Math.max(managers.length, ...managers.map((each) => each.seen?.members.length ?? 0));
    const holders = managers.filter((each) => {
      if (each === host || each.isLost || each.disk.isDoubtful) return false;
      return entryOf(imageOf(each.disk.memory), index)?.term === term;
    });
    return holders.length > size / 2;
  }
}
