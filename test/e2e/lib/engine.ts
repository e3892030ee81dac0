/**
 * A container engine (dockerd) of a host of a test bed, with all its files in the host's folder.
 *
 * On a host with a network of its own the engine keeps its packet rules. On the machine's own network it makes
 * none, and its bridges are removed with it, so that nothing outside the test changes.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { callEngine, callEngineJson, type EngineRequest } from '../../../examples/voting/lib/engine-api.ts';
import { waitFor } from '../../support/wait.ts';
import type { Host } from './hosts.ts';
import { execChecked, execCommand, type TestProcess } from './processes.ts';

const READY_TIMEOUT_MS = 30_000;

function readOptional(path: string): string | null {
  return existsSync(path) ? readFileSync(path, 'utf8') : null;
}

/** An engine that can be started, stopped and killed any number of times. */
export class Engine {
  readonly host: Host;
  readonly socketPath: string;
  readonly #extraArgs: readonly string[];
  readonly #bridge: string | null;
  #process: TestProcess | null = null;
  #linksBefore: ReadonlySet<string> = new Set();

  /** `args` are added to the engine's own flags, as `--live-restore`. */
  constructor(host: Host, args: readonly string[] = []) {
    this.host = host;
    this.socketPath = join(host.folder, 'engine.sock');
    this.#extraArgs = args;
    this.#bridge = host.index === 0 ? `sbr${process.pid}` : null;
  }

  get running(): boolean {
    return this.#process?.running === true;
  }

  /** Starts the engine and waits until it answers. */
  async start(): Promise<void> {
    if (this.#bridge !== null) await this.#makeBridge(this.#bridge);
    const folder = join(this.host.folder, 'engine');
    const third = this.host.index;
    const network =
      this.#bridge === null
        ? ['--bip', `172.20.${third}.1/24`]
        : ['--bridge', this.#bridge, '--iptables=false', '--ip-masq=false', '--ip-forward=false'];
    const process = this.host.spawn(
      [
        'dockerd',
        '--data-root',
        join(folder, 'data'),
        '--exec-root',
        join(folder, 'exec'),
        '--pidfile',
        join(folder, 'pid'),
        '--host',
        `unix://${this.socketPath}`,
        '--default-address-pool',
        `base=172.21.${third}.0/24,size=28`,
        ...network,
        ...this.#extraArgs,
      ],
      'engine',
      { env: { DOCKER_HOST: '' } },
    );
    this.#process = process;
    await waitFor(
      `the engine of ${this.host.name}`,
      async () => {
        if (!process.running) return 'ended' as const;
        await callEngine(this.socketPath, { method: 'GET', path: '/_ping', timeoutMs: 1_000 });
        return 'ready' as const;
      },
      { timeoutMs: READY_TIMEOUT_MS, everyMs: 20 },
    ).then((outcome) => {
      if (outcome === 'ended') throw new Error(`the engine of ${this.host.name} ended:\n${process.output()}`);
    });
  }

  /** Ends the engine in order; its containers end too unless it keeps them over restarts. */
  async stop(): Promise<void> {
    await this.#process?.stop(20_000);
    this.#process = null;
    await this.#removeLinks();
  }

  /** Ends the engine at once, as a crash would. */
  async kill(): Promise<void> {
    this.#process?.kill('SIGKILL');
    await this.#process?.ended;
    this.#process = null;
    // The kernel ends containerd with its parent, but not at once, and the next engine would take it for alive.
    const containerd = readOptional(join(this.host.folder, 'engine/exec/containerd/containerd.pid'));
    await waitFor(
      'containerd to end',
      () => containerd === null || !existsSync(`/proc/${containerd.trim()}`),
    );
    rmSync(this.socketPath, { force: true });
  }

  /** Calls the engine's HTTP API; the path is below the version. */
  async call(request: EngineRequest): Promise<string> {
    return await callEngine(this.socketPath, request);
  }

  /** Calls the engine's HTTP API and parses the answer. */
  async callJson<T>(request: EngineRequest): Promise<T> {
    return await callEngineJson<T>(this.socketPath, request);
  }

  /** Creates and starts a container; returns its id. `config` is the engine's own form. */
  async runContainer(config: Readonly<Record<string, unknown>>, name?: string): Promise<string> {
    const query = name === undefined ? '' : `?name=${encodeURIComponent(name)}`;
    const { Id: id } = await this.callJson<{ Id: string }>({
      method: 'POST',
      path: `/containers/create${query}`,
      json: config,
    });
    await this.call({ method: 'POST', path: `/containers/${id}/start` });
    return id;
  }

  /** Runs a command in a container; its output and errors come as one text. */
  async execInContainer(
    container: string,
    argv: readonly string[],
  ): Promise<{ readonly code: number; readonly output: string }> {
    // With a terminal the engine sends the plain text, where it would frame it otherwise.
    const { Id: id } = await this.callJson<{ Id: string }>({
      method: 'POST',
      path: `/containers/${container}/exec`,
      json: { Cmd: argv, AttachStdout: true, AttachStderr: true, Tty: true },
    });
    const output = await this.call({ method: 'POST', path: `/exec/${id}/start`, json: { Tty: true } });
    const { ExitCode: code } = await this.callJson<{ ExitCode: number }>({
      method: 'GET',
      path: `/exec/${id}/json`,
    });
    return { code, output: output.replaceAll('\r\n', '\n') };
  }

  /** Removes every container. For an engine on the machine's own network, call it before the bed is removed. */
  async removeContainers(): Promise<void> {
    const containers = await this.callJson<{ Id: string }[]>({
      method: 'GET',
      path: '/containers/json?all=1',
    });
    for (const { Id: id } of containers) {
      await this.call({ method: 'DELETE', path: `/containers/${id}?force=1&v=1` });
    }
  }

  /** What the engine wrote to its log. */
  log(): string {
    return readFileSync(join(this.host.folder, 'engine.log'), 'utf8');
  }

  async #links(): Promise<string[]> {
    const text = await execChecked(['ip', '-j', 'link', 'show', 'type', 'bridge']);
    return (JSON.parse(text) as { ifname: string }[]).map((link) => link.ifname);
  }

  async #makeBridge(bridge: string): Promise<void> {
    this.#linksBefore = new Set(await this.#links());
    if (this.#linksBefore.has(bridge)) return;
    await execChecked(['ip', 'link', 'add', bridge, 'type', 'bridge']);
    await execChecked(['ip', 'addr', 'add', '172.20.255.1/24', 'dev', bridge]);
    await execChecked(['ip', 'link', 'set', bridge, 'up']);
  }

  async #removeLinks(): Promise<void> {
    if (this.#bridge === null) return;
    for (const link of await this.#links()) {
      if (!this.#linksBefore.has(link)) await execCommand(['ip', 'link', 'del', link]);
    }
  }
}
