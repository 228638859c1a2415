import { storeContractSuite, temporaryStore } from '../src/testing/index.js';

storeContractSuite('chDB in this process', () => temporaryStore());
