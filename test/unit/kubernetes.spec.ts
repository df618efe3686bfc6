import { readFileSync } from 'node:fs';
import { Environment } from '../../src/config/environment.js';
import { kubectl, type Manifest, readManifests, typeErrors } from '../support/kubernetes.js';

interface Container {
  name: string;
  command?: string[];
  args?: string[];
  env?: { name: string; valueFrom?: { secretKeyRef?: { name: string } } }[];
  envFrom?: { configMapRef: { name: string } }[];
  ports?: { name: string; containerPort: number }[];
  resources: unknown;
  securityContext: unknown;
  [probe: `${string}Probe`]: { httpGet: { path: string; port: string } };
}
interface PodTemplate {
  metadata: { labels: Record<string, string> };
  spec: {
    containers: Container[];
    initContainers?: Container[];
    terminationGracePeriodSeconds?: number;
  } & Record<string, unknown>;
}

if (!kubectl) {
  process.stdout.write(
    'kubectl not found: the manifests are checked before Kustomize changes them.\n',
  );
}
const whenRendered = kubectl ? it : it.skip;

const manifests = readManifests();
const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  scripts: Record<string, string>;
};

function find(kind: string, name = 'gatehouse'): Manifest {
  const found = manifests.find((one) => one.kind === kind && one.metadata.name === name);
  if (!found) throw new Error(`There is no ${kind} ${name}.`);
  return found;
}

const deployment = find('Deployment');
const api = deployment['spec'].template as PodTemplate;
const housekeeping = find('CronJob', 'gatehouse-housekeeping')['spec'].jobTemplate.spec
  .template as PodTemplate;
const pods: [string, PodTemplate][] = [
  ['Deployment', api],
  ['CronJob', housekeeping],
];
const containersOf = ({ spec }: PodTemplate) => [
  ...(spec.initContainers ?? []),
  ...spec.containers,
];
const [server] = api.spec.containers as [Container];
const [migration] = api.spec.initContainers as [Container];
const selects = (labels: Record<string, string>, { metadata }: PodTemplate) =>
  Object.entries(labels).every(([name, value]) => metadata.labels[name] === value);

/** Faults that `kubectl apply` accepts, or that only the cluster reports. */
const FAULTS: [string, (manifest: Manifest) => void][] = [
  ['a number as text', ({ spec }) => (spec.replicas = '2')],
  [
    'a misspelt field',
    ({ spec }) => (spec.template.spec.containers[0].livenessProbe.periodSecond = 5),
  ],
  [
    'a field of the container at the pod',
    ({ spec }) => (spec.template.spec.securityContext.readOnlyRootFilesystem = true),
  ],
  [
    'a number as the value of a variable',
    ({ spec }) => {
      spec.template.spec.initContainers[0].env[1].value = 8000;
    },
  ],
  ['a misspelt field in a list', ({ spec }) => (spec.template.spec.tolerations = [{ keys: 'a' }])],
  ['a missing selector', ({ spec }) => delete spec.selector],
];

describe('types of Kubernetes', () => {
  const faulty = FAULTS.map(([, plant]) => {
    const copy = structuredClone(deployment);
    plant(copy);
    return copy;
  });
  let errors: string[][];
  // One program for all, because the types take most of the time.
  beforeAll(() => (errors = typeErrors([...manifests, ...faulty])), 60_000);

  it.each(manifests.map(({ kind, metadata }, index) => [kind, metadata.name, index] as const))(
    'describe the manifest of %s %s',
    (_kind, _name, index) => {
      expect(errors[index]).toEqual([]);
    },
  );

  it.each(FAULTS.map(([fault], index) => [fault, manifests.length + index] as const))(
    'refuse %s',
    (_fault, index) => {
      expect(errors[index]).toHaveLength(1);
    },
  );
});

describe('pods', () => {
  it.each(pods)('fulfil the restricted Pod Security Standard: %s', (_kind, pod) => {
    expect(pod.spec).toMatchObject({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      serviceAccountName: 'gatehouse',
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 1000,
        seccompProfile: { type: 'RuntimeDefault' },
      },
    });
    for (const { securityContext, resources } of containersOf(pod)) {
      expect(securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      expect(resources).toMatchObject({
        requests: { memory: '256Mi' },
        limits: { memory: '512Mi' },
      });
    }
  });

  it('run the commands of package.json', () => {
    expect(migration.command?.join(' ')).toBe(scripts['migrate']);
    const [{ command, args } = {}] = housekeeping.spec.containers;
    expect(command?.join(' ')).toBe(scripts['housekeeping']);
    // Without such an option it deletes nothing. Only the owner of the tables may delete events.
    expect(args).toEqual(['--sessions-older-than', expect.stringMatching(/^[1-9]\d+$/)]);
    // The command of the image: container.spec.ts checks it.
    expect(server.command).toBeUndefined();
  });

  it('expose the port of the image', () => {
    const ports = Object.fromEntries(
      (server.ports ?? []).map(({ name, containerPort }) => [name, containerPort]),
    );
    expect(readFileSync('Dockerfile', 'utf8')).toContain(`\nEXPOSE ${ports['http']}\n`);
    expect(find('Service')['spec'].ports).toEqual([
      expect.objectContaining({ targetPort: 'http' }),
    ]);
  });

  it('are probed at paths that exist', () => {
    const { paths } = JSON.parse(readFileSync('openapi.json', 'utf8')) as { paths: object };
    for (const [probe, path] of [
      ['startupProbe', '/health/live'],
      ['livenessProbe', '/health/live'],
      ['readinessProbe', '/health/ready'],
    ] as const) {
      expect(server[probe]?.httpGet).toEqual({ path, port: 'http' });
      expect(Object.keys(paths)).toContain(path);
    }
  });

  it('have enough time to shut down', () => {
    const config = manifests.find(({ kind }) => kind === 'ConfigMap')?.['data'];
    const delayMs = Number(config?.SHUTDOWN_DELAY_MS ?? new Environment().SHUTDOWN_DELAY_MS);
    expect(api.spec.terminationGracePeriodSeconds).toBeGreaterThan(delayMs / 1000 + 12);
  });

  it('get the password of the owner only for the migration', () => {
    const secretsOf = ({ env = [] }: Container) =>
      env.flatMap(({ valueFrom }) => valueFrom?.secretKeyRef?.name ?? []);
    expect(secretsOf(server)).toEqual(['gatehouse']);
    expect(secretsOf(migration)).toEqual(['gatehouse-migration', 'gatehouse-migration']);
    expect(housekeeping.spec.containers.map(secretsOf)).toEqual([['gatehouse', 'gatehouse']]);
    expect(manifests.filter(({ kind }) => kind === 'Secret')).toEqual([]);
  });

  it('are replaced one after the other, and let a node be drained', () => {
    const { strategy } = deployment['spec'];
    expect(strategy).toEqual({
      type: 'RollingUpdate',
      rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
    });
    const { maxUnavailable, minAvailable } = find('PodDisruptionBudget')['spec'];
    expect([maxUnavailable, minAvailable]).toEqual([1, undefined]);
    expect(find('HorizontalPodAutoscaler')['spec'].minReplicas).toBeGreaterThan(1);
  });

  it('use at most the connections that PostgreSQL allows by default', () => {
    const { maxReplicas } = find('HorizontalPodAutoscaler')['spec'];
    const surge = deployment['spec'].strategy.rollingUpdate.maxSurge as number;
    // A pod that shuts down still has its connections, and Kubernetes does not count it.
    const pods = maxReplicas + surge + 2;
    // The pool, the connection of the change feed, and the one that checks it every five seconds.
    const configured = readFileSync('deploy/kubernetes/base/kustomization.yaml', 'utf8');
    const perPod = Number(/DATABASE_POOL_MAX=(\d+)/.exec(configured)?.[1]) + 2;
    const migrations = surge * 3;
    // 100, without those for superusers. Better-Auth needs the rest.
    expect(pods * perPod + migrations).toBeLessThan(97 - 20);
  });
});

describe('selectors', () => {
  it.each(['gatehouse', 'gatehouse-metrics'])(
    'send requests for Service %s to the API, and not to the housekeeping',
    (name) => {
      const { selector } = find('Service', name)['spec'];
      expect([selects(selector, api), selects(selector, housekeeping)]).toEqual([true, false]);
    },
  );

  it('apply the deployment, the disruption budget and the spread to the pods of the API', () => {
    const { selector, template } = deployment['spec'];
    const all = [
      selector,
      find('PodDisruptionBudget')['spec'].selector,
      ...template.spec.topologySpreadConstraints.map((one: Manifest) => one['labelSelector']),
    ];
    expect(all).toHaveLength(4);
    for (const { matchLabels } of all) {
      expect([selects(matchLabels, api), selects(matchLabels, housekeeping)]).toEqual([
        true,
        false,
      ]);
    }
    expect(find('HorizontalPodAutoscaler')['spec'].scaleTargetRef.name).toBe('gatehouse');
  });

  it('let ServiceMonitor find the port of the metrics', () => {
    const { selector, endpoints } = find('ServiceMonitor')['spec'];
    const { metadata, spec } = find('Service', 'gatehouse-metrics');
    expect(metadata.labels).toMatchObject(selector.matchLabels);
    expect(spec.ports).toEqual([expect.objectContaining({ name: endpoints[0].port })]);
    expect(endpoints).toEqual([expect.objectContaining({ path: '/metrics' })]);
    // The alerts and the dashboard select this job.
    expect(metadata.labels?.[find('ServiceMonitor')['spec'].jobLabel]).toBe('gatehouse');
  });
});

describe('network policies', () => {
  const policies = manifests.filter(({ kind }) => kind === 'NetworkPolicy');

  it('forbid all traffic of every pod that no other policy allows', () => {
    const { podSelector, policyTypes, ingress, egress } = find('NetworkPolicy')['spec'];
    for (const [, pod] of pods) expect(selects(podSelector.matchLabels, pod)).toBe(true);
    expect({ policyTypes, ingress, egress }).toEqual({ policyTypes: ['Ingress', 'Egress'] });
  });

  it('apply to pods that exist, and name ports that exist', () => {
    const ports = policies.flatMap(({ spec }) =>
      (spec.ingress ?? []).flatMap((rule: { ports: { port: string }[] }) => rule.ports),
    );
    // The patch that adds the port `metrics` needs Kustomize.
    const names = [
      ...(server.ports ?? []).map(({ name }) => name),
      ...(kubectl ? [] : ['metrics']),
    ];
    expect(new Set(ports.map(({ port }) => port))).toEqual(new Set(names));
    for (const { spec } of policies) expect(selects(spec.podSelector.matchLabels, api)).toBe(true);
  });

  it('accept connections only from the namespaces of the proxy and of Prometheus', () => {
    const sources = policies
      .flatMap(({ spec }) => (spec.ingress ?? []) as { from?: object[] }[])
      .map(({ from }) => from);
    const namespace = (name: string) => [
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': name } } },
    ];
    expect(new Set(sources)).toEqual(new Set([namespace('traefik'), namespace('monitoring')]));
    const paths = find('Ingress')['spec'].rules.flatMap((rule: Manifest) => rule['http'].paths);
    expect(paths).toEqual([expect.objectContaining({ path: '/api/v1/', pathType: 'Prefix' })]);
  });

  it('let the housekeeping reach only the database and DNS', () => {
    const reached = policies
      .filter(({ spec }) => selects(spec.podSelector.matchLabels, housekeeping))
      .flatMap(({ spec }) => spec.egress ?? [])
      .flatMap((rule: { ports: { port: number }[] }) => rule.ports.map(({ port }) => port));
    expect(new Set(reached)).toEqual(new Set([53, 5432]));
  });
});

describe('ConfigMap', () => {
  whenRendered('contains only variables that Gatehouse reads', () => {
    const map = manifests.find(({ kind }) => kind === 'ConfigMap');
    const names = [server, migration].flatMap(({ env = [] }) => env.map(({ name }) => name));
    const known = [...Object.keys(new Environment()), 'METRICS_PORT'];
    expect(known).toEqual(expect.arrayContaining([...Object.keys(map?.['data']), ...names]));
  });

  whenRendered('starts new pods when a value changes', () => {
    const map = manifests.find(({ kind }) => kind === 'ConfigMap');
    expect(map?.metadata.name).toMatch(/^gatehouse-[a-z0-9]{10}$/);
    const used = pods
      .flatMap(([, pod]) => containersOf(pod))
      .flatMap(({ envFrom = [] }) => envFrom.map(({ configMapRef }) => configMapRef.name));
    expect(new Set(used)).toEqual(new Set([map?.metadata.name]));
  });

  whenRendered('matches the port of the metrics', () => {
    const port = manifests.find(({ kind }) => kind === 'ConfigMap')?.['data'].METRICS_PORT;
    const metrics = server.ports?.find(({ name }) => name === 'metrics');
    expect(String(metrics?.containerPort)).toBe(port);
  });
});

describe('example overlay', () => {
  whenRendered('runs one image in every container', () => {
    const images = pods
      .flatMap(([, pod]) => containersOf(pod))
      .map((container) => (container as unknown as { image: string }).image);
    expect(new Set(images)).toEqual(new Set(['registry.example.com/gatehouse:0.1.0']));
  });

  it('puts every object into its namespace', () => {
    const namespace = find('Namespace').metadata;
    expect(namespace.labels).toEqual({ 'pod-security.kubernetes.io/enforce': 'restricted' });
    if (!kubectl) return;
    const elsewhere = manifests.filter(
      ({ kind, metadata }) => kind !== 'Namespace' && metadata.namespace !== namespace.name,
    );
    expect(elsewhere).toEqual([]);
  });
});
