// For `offbeat doctor`: prints what keeps an adapter from being found as one line of JSON, or null. Changes nothing.
import { explainAdapter } from './adapter.mjs';

console.log(JSON.stringify(await explainAdapter()));
