/**
 * The floors of the house: imports go strictly downwards, never sideways (docs/architecture.md).
 * A room may import exactly the rooms listed beside it.
 */
const allowed = {
  core: [],
  native: ['core'],
  store: ['core'],
  models: ['core'],
  releases: ['core'],
  simulator: ['core'],
  features: ['core', 'native', 'store'],
  content: ['core', 'native', 'models'],
  forecasting: ['core', 'native'],
  retrieval: ['core', 'native'],
  ranking: ['core', 'native', 'models'],
  measurement: ['core', 'native'],
  training: [
    'core',
    'native',
    'store',
    'models',
    'releases',
    'features',
    'content',
    'forecasting',
    'retrieval',
    'ranking',
    'measurement',
  ],
  engine: [
    'core',
    'native',
    'store',
    'models',
    'releases',
    'features',
    'content',
    'forecasting',
    'retrieval',
    'ranking',
    'measurement',
  ],
};

const pathOf = (room) => (room === 'native' ? '^native/' : `^packages/${room}/`);

const floors = Object.entries(allowed).map(([room, below]) => ({
  name: `floor-of-${room}`,
  comment: `${room} may import only: ${below.join(', ') || 'nothing of the workspace'}`,
  severity: 'error',
  from: { path: `${pathOf(room)}(src|ts)/` },
  to: {
    path: '^(packages|apps|native|benchmarks)/',
    pathNot: [pathOf(room), ...below.map(pathOf)],
  },
}));

module.exports = {
  forbidden: [
    ...floors,
    {
      name: 'no-cycles',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'nothing-imports-benchmarks',
      comment: 'benchmarks imports anything and is imported by nothing',
      severity: 'error',
      from: { pathNot: '^benchmarks/' },
      to: { path: '^benchmarks/' },
    },
    {
      name: 'apps-are-tops',
      comment: 'only the command line starts the gateway; no package imports an app',
      severity: 'error',
      from: { path: '^(packages|native)/' },
      to: { path: '^apps/' },
    },
    {
      name: 'gateway-stands-alone',
      severity: 'error',
      from: { path: '^apps/gateway/src' },
      to: { path: '^(apps/pipeline|packages/(simulator|training|content))/' },
    },
    {
      name: 'simulator-only-for-its-command',
      comment: 'outside tests and benches the simulator is imported by the simulate command alone',
      severity: 'error',
      from: {
        path: '^(packages|apps|native)/.*(src|ts)/',
        pathNot: ['^packages/simulator/', '^apps/pipeline/src/commands/simulate'],
      },
      to: { path: '^packages/simulator/' },
    },
    {
      name: 'contract-is-browser-safe',
      comment: 'core/contract runs anywhere: no Node built-ins',
      severity: 'error',
      from: { path: '^packages/core/src/contract/' },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'no-deep-imports',
      comment: 'go through a package’s exports',
      severity: 'error',
      from: { path: '^(packages/[^/]+|apps/[^/]+|native|benchmarks)/' },
      to: {
        dependencyTypes: ['npm', 'npm-no-pkg', 'npm-unknown'],
        path: 'node_modules/@waggle/[^/]+/(src|dist|ts)/',
      },
    },
    {
      name: 'not-in-package-json',
      severity: 'error',
      from: { path: '/src/|^native/ts/' },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown', 'unknown'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(dist|build|test|\\.vitest)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['waggle-source', 'node', 'import', 'types', 'default'],
      extensions: ['.ts', '.js', '.mjs', '.json'],
    },
  },
};
