/**
 * A slow disk without the kernel's help: a library that is loaded before the C library, compiled where a run needs it,
 * delays every fsync and fdatasync by what a file says at that moment.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** The compiled library. */
export interface SlowDiskShim {
  readonly path: string;
}

const VARIABLE = 'SWARMD_TORTURE_DELAY';

const SOURCE = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void delay(void) {
  const char *path = getenv("${VARIABLE}");
  char text[16] = {0};
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  long ms = length > 0 ? atol(text) : 0;
  struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
  if (ms > 0) nanosleep(&wait, NULL);
}

int fdatasync(int fd) {
  delay();
  return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int fsync(int fd) {
  delay();
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
`;

/** Compiles the library in `folder`; null where there is no C compiler. */
export function compileShim(folder: string): SlowDiskShim | null {
  const source = join(folder, 'slow-disk.c');
  const path = join(folder, 'slow-disk.so');
  writeFileSync(source, SOURCE);
  const { status } = spawnSync('cc', ['-shared', '-fPIC', '-O1', '-o', path, source, '-ldl']);
  return status === 0 ? { path } : null;
}

/** What a process needs in its environment so that `delayFile` delays it. */
export function delayEnvironment(shim: SlowDiskShim, delayFile: string): Record<string, string> {
  return { LD_PRELOAD: shim.path, [VARIABLE]: delayFile };
}

/** Delays every sync by `ms` from now on; 0 for no delay. */
export function setDelay(delayFile: string, ms: number): void {
  writeFileSync(delayFile, String(ms));
}
