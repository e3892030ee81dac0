/**
 * The images of examples/voting work on a plain engine, where the engine itself joins them by name.
 * @needs hosts
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { buildVotingImages } from '../../examples/voting/build-images.ts';
import { waitFor } from '../support/wait.ts';
import { Engine } from './lib/engine.ts';
import { makeTestBed, type TestBed } from './lib/hosts.ts';

const NETWORK = 'voting';
let bed: TestBed;
let engine: Engine;

before(async () => {
  bed = await makeTestBed({ hosts: 1 });
  engine = new Engine(bed.hosts[0] as TestBed['hosts'][number]);
  await engine.start();
});
after(() => bed.remove());

async function runService(name: string, version: string, hostPort?: number): Promise<string> {
  const ports = hostPort === undefined ? {} : { '80/tcp': [{ HostPort: String(hostPort) }] };
  const config = {
    Image: `voting/${name}:${version}`,
    ExposedPorts: hostPort === undefined ? {} : { '80/tcp': {} },
    HostConfig: { NetworkMode: NETWORK, PortBindings: ports },
  };
  return await engine.runContainer(config, name);
}

test('the images are made, run, find one another by name, and count a vote', async () => {
  const images = await buildVotingImages(engine.socketPath);
  assert.equal(images.length, 10);
  await engine.call({ method: 'POST', path: '/networks/create', json: { Name: NETWORK } });
  // Those that need others start first: each keeps trying until the name exists.
  const vote = await runService('vote', '2', 5000);
  await runService('result', '1', 5001);
  await runService('worker', '1');
  await runService('redis', '1');
  await runService('db', '1');
  const page = await waitFor('the page', async () => await bed.client.fetch('http://10.77.0.1:5000/'));
  assert.match(page.body, /version 2, served by/);
  const cast = { args: ['-d', 'vote=a'] };
  await waitFor('a vote to be taken', async () => {
    return (await bed.client.fetch('http://10.77.0.1:5000/', cast)).status === 200;
  });
  await waitFor('the vote to be counted', async () => {
    const answer = await bed.client.fetch('http://10.77.0.1:5001/');
    return answer.status === 200 && (JSON.parse(answer.body) as { votes: { a?: number } }).votes.a === 1;
  });
  const startedMs = performance.now();
  await engine.call({ method: 'POST', path: `/containers/${vote}/stop?t=10` });
  assert.ok(performance.now() - startedMs < 5_000, 'vote ends on SIGTERM, long before it is killed');
});
