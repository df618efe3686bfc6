export { stopCluster as default } from './global-setup.ts';
