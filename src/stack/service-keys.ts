/** The keys a compose file may hold, by place: which are read, which have no effect in a cluster, which cannot be. */
import type { KeyTable } from './reader.ts';

const ONE_HOST = 'it belongs to a single host and has no effect in a cluster';
const USE_DEPLOY = 'use deploy.resources';

export const rootKeys: KeyTable = {
  known: ['version', 'name', 'services', 'networks', 'volumes', 'secrets', 'configs'],
  ignored: { models: 'models are not provided' },
  refused: { include: 'give the files one by one with -c instead' },
};

export const serviceKeys: KeyTable = {
  known: [
    'image',
    'runtime',
    'command',
    'entrypoint',
    'environment',
    'env_file',
    'ports',
    'volumes',
    'tmpfs',
    'networks',
    'deploy',
    'scale',
    'restart',
    'depends_on',
    'healthcheck',
    'stop_grace_period',
    'stop_signal',
    'user',
    'group_add',
    'working_dir',
    'hostname',
    'tty',
    'stdin_open',
    'read_only',
    'init',
    'cap_add',
    'cap_drop',
    'sysctls',
    'ulimits',
    'extra_hosts',
    'dns',
    'dns_search',
    'dns_opt',
    'logging',
    'labels',
    'configs',
    'secrets',
    'cpus',
    'mem_limit',
    'mem_reservation',
    'pids_limit',
    'platform',
    'expose',
    'attach',
  ],
  ignored: {
    annotations: 'annotations are not passed on',
    blkio_config: ONE_HOST,
    build: 'a cluster runs ready images; build the image, push it to a registry and name it in `image`',
    cgroup: ONE_HOST,
    cgroup_parent: ONE_HOST,
    cgroupns_mode: ONE_HOST,
    container_name: 'a service has many containers; they are named service.slot.task',
    cpu_count: USE_DEPLOY,
    cpu_percent: USE_DEPLOY,
    cpu_period: USE_DEPLOY,
    cpu_quota: USE_DEPLOY,
    cpu_rt_period: USE_DEPLOY,
    cpu_rt_runtime: USE_DEPLOY,
    cpu_shares: USE_DEPLOY,
    cpuset: USE_DEPLOY,
    credential_spec: 'it is for Windows containers',
    develop: 'it is for development on one machine',
    device_cgroup_rules: ONE_HOST,
    devices: ONE_HOST,
    domainname: 'put the domain into `hostname`',
    external_links: 'join the services by a network instead',
    gpus: 'reserve them with deploy.resources.reservations.generic_resources',
    ipc: ONE_HOST,
    isolation: 'it is for Windows containers',
    label_file: 'give the labels in `labels`',
    links: 'services of one network find each other by name',
    mac_address: ONE_HOST,
    mem_swappiness: ONE_HOST,
    memswap_limit: ONE_HOST,
    models: 'models are not provided',
    network_mode: 'use `networks`, or `ports` with `mode: host`',
    oom_kill_disable: ONE_HOST,
    oom_score_adj: ONE_HOST,
    pid: ONE_HOST,
    post_start: 'hooks are not run',
    pre_stop: 'hooks are not run',
    privileged: 'tasks never run privileged; use `cap_add`',
    profiles: 'there are no profiles in a cluster; the service is deployed',
    provider: 'providers are not run',
    pull_policy: 'an image is pulled where it is missing',
    security_opt: 'security options are not passed on',
    shm_size: 'mount a tmpfs at /dev/shm instead',
    storage_opt: ONE_HOST,
    use_api_socket: ONE_HOST,
    userns_mode: ONE_HOST,
    uts: ONE_HOST,
    volume_driver: 'give the driver with the volume, under top-level `volumes`',
  },
  refused: {
    extends: 'copy the keys, or share them with a YAML anchor',
    volumes_from: 'name a volume under top-level `volumes` and mount it in both services',
  },
};

export const deployKeys: KeyTable = {
  known: [
    'mode',
    'replicas',
    'labels',
    'update_config',
    'rollback_config',
    'restart_policy',
    'resources',
    'placement',
    'endpoint_mode',
  ],
};

export const updateKeys: KeyTable = {
  known: ['parallelism', 'delay', 'failure_action', 'monitor', 'max_failure_ratio', 'order'],
};

/** Of `deploy.x-rebalance`, swarmd's own: other readers of compose files pass over it. */
export const rebalanceKeys: KeyTable = { known: ['max_moves', 'margin', 'cooldown'] };

export const restartKeys: KeyTable = { known: ['condition', 'delay', 'max_attempts', 'window'] };

export const resourcesKeys: KeyTable = { known: ['limits', 'reservations'] };
export const limitsKeys: KeyTable = {
  known: ['cpus', 'memory', 'pids'],
  ignored: { devices: 'devices are only reserved', generic_resources: 'generic resources are only reserved' },
};
export const reservationsKeys: KeyTable = {
  known: ['cpus', 'memory', 'generic_resources'],
  ignored: {
    devices: 'reserve them with generic_resources',
    pids: 'processes are only limited; put it under limits',
  },
};

export const placementKeys: KeyTable = { known: ['constraints', 'preferences', 'max_replicas_per_node'] };

export const healthKeys: KeyTable = {
  known: ['test', 'interval', 'timeout', 'retries', 'start_period', 'disable'],
  ignored: { start_interval: 'the interval is used from the start' },
};

export const portKeys: KeyTable = {
  known: ['name', 'target', 'published', 'protocol', 'mode'],
  ignored: {
    host_ip: 'a published port listens on every address of every node',
    app_protocol: 'the protocol above the port is not used',
  },
};

export const volumeMountKeys: KeyTable = {
  known: ['type', 'source', 'target', 'read_only', 'bind', 'volume', 'tmpfs', 'consistency'],
  ignored: { image: 'image mounts are not supported' },
};
export const bindKeys: KeyTable = {
  known: ['propagation'],
  ignored: {
    create_host_path: 'a missing host path is an error of the node',
    selinux: 'labelling is left to the host',
    recursive: 'bind mounts are recursive',
  },
};
export const volumeOptionKeys: KeyTable = {
  known: ['nocopy', 'labels'],
  ignored: { subpath: 'the whole volume is mounted' },
};
export const tmpfsKeys: KeyTable = { known: ['size', 'mode'] };

export const serviceNetworkKeys: KeyTable = {
  known: ['aliases'],
  ignored: {
    ipv4_address: 'addresses are given by the cluster',
    ipv6_address: 'addresses are given by the cluster',
    link_local_ips: 'addresses are given by the cluster',
    mac_address: 'addresses are given by the cluster',
    driver_opts: 'a network has one set of options; give them under top-level `networks`',
    priority: 'networks are joined in the order given',
    gw_priority: 'networks are joined in the order given',
    interface_name: 'interfaces are named by the engine',
  },
};

export const networkKeys: KeyTable = {
  known: ['name', 'driver', 'driver_opts', 'internal', 'attachable', 'external', 'labels', 'ipam'],
  ignored: { enable_ipv6: 'networks are IPv4', enable_ipv4: 'networks are IPv4' },
};
export const ipamKeys: KeyTable = {
  known: ['config', 'driver'],
  ignored: { options: 'address management has no options' },
};
export const ipamConfigKeys: KeyTable = {
  known: ['subnet'],
  ignored: {
    gateway: 'the gateway is given by the cluster',
    ip_range: 'the whole subnet is used',
    aux_addresses: 'the whole subnet is used',
  },
};

export const volumeKeys: KeyTable = {
  known: ['name', 'driver', 'driver_opts', 'external', 'labels'],
};

export const payloadKeys: KeyTable = {
  known: ['name', 'file', 'environment', 'content', 'external', 'labels'],
  refused: {
    driver: 'secret drivers are not supported; give the value in `file` or `environment`',
    template_driver: 'templates are not filled in',
  },
  ignored: { driver_opts: 'secret drivers are not supported' },
};

export const fileReferenceKeys: KeyTable = { known: ['source', 'target', 'uid', 'gid', 'mode'] };
export const loggingKeys: KeyTable = { known: ['driver', 'options'] };
export const ulimitKeys: KeyTable = { known: ['soft', 'hard', 'single'] };
export const envFileKeys: KeyTable = {
  known: ['path', 'required'],
  ignored: { format: 'values are taken as written' },
};
