import { assert } from '../lib/assert.js';
import type { SequenceRequest } from './sequence.js';
import { STOP_IDS_MAX } from './step-tables.js';

/** Stops a request that no engine could carry out before it shares a batch with others. */
export function checkRequest(request: SequenceRequest, vocabSize: number): void {
  const { id, promptTokenIds, generated, tokensMax, sampling, stopTokenIds } = request;
  const known = generated.tokenIds.length;
  const check = (condition: boolean, what: string): void => assert(condition, `sequence ${id}: ${what}`);
  check(promptTokenIds.length > 0, 'no prompt');
  check(known < tokensMax, `${known} of ${tokensMax} tokens are generated: nothing is left to do`);
  for (const list of [generated.logprobs, generated.rawLogprobs, generated.versions]) {
    check(list.length === known, `${list.length} entries for ${known} generated tokens`);
  }
  for (const token of [...promptTokenIds, ...generated.tokenIds]) {
    check(Number.isInteger(token) && token >= 0 && token < vocabSize, `token ${token} of ${vocabSize}`);
  }
  check(stopTokenIds.length <= STOP_IDS_MAX, `${stopTokenIds.length} stop ids, at most ${STOP_IDS_MAX}`);
  const { temperature, topK, topP, minP } = sampling;
  check(Number.isFinite(temperature) && temperature >= 0, `temperature ${temperature}`);
  check(Number.isInteger(topK) && topK >= 0, `topK ${topK}`);
  check(topP > 0 && topP <= 1, `topP ${topP}`);
  check(minP >= 0 && minP <= 1, `minP ${minP}`);
}
