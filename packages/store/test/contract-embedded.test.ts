import { temporaryStore } from '../src/testing/index.js';
import { storeContractSuite } from './support/store-contract.js';

storeContractSuite('chDB in this process', () => temporaryStore());
