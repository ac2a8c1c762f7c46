import { assert } from '../lib/assert.js';
import type { Episode, Turn } from './episode.js';
import type { SequenceRequest } from './sequence.js';
import { STOP_IDS_MAX } from './step-tables.js';

type Check = (condition: boolean, what: string) => void;

/** Stops a request that no engine could carry out before it shares a batch with others. */
export function checkRequest(request: SequenceRequest, vocabSize: number): void {
  const { id, promptTokenIds, generated, tokensMax, sampling, stopTokenIds, episode } = request;
  const known = generated.tokenIds.length;
  const check: Check = (condition, what) => assert(condition, `sequence ${id}: ${what}`);
  check(promptTokenIds.length > 0, 'no prompt');
  const isBetweenTurns = episode !== undefined && episode.turnEnd !== null;
  const isDone = isBetweenTurns ? known > tokensMax : known >= tokensMax;
  check(!isDone, `${known} of ${tokensMax} tokens are generated: nothing is left to do`);
  for (const list of [generated.logprobs, generated.rawLogprobs, generated.versions]) {
    check(list.length === known, `${list.length} entries for ${known} generated tokens`);
  }
  checkTokens([...promptTokenIds, ...generated.tokenIds], vocabSize, check);
  if (episode !== undefined) checkEpisode(episode, known, vocabSize, check);
  check(stopTokenIds.length <= STOP_IDS_MAX, `${stopTokenIds.length} stop ids, at most ${STOP_IDS_MAX}`);
  const { temperature, topK, topP, minP } = sampling;
  check(Number.isFinite(temperature) && temperature >= 0, `temperature ${temperature}`);
  check(Number.isInteger(topK) && topK >= 0, `topK ${topK}`);
  check(topP > 0 && topP <= 1, `topP ${topP}`);
  check(minP >= 0 && minP <= 1, `minP ${minP}`);
}

/** Stops a turn that no engine could carry out. */
export function checkTurn(id: number, { tokenIds, tokensMax }: Turn, vocabSize: number): void {
  const check: Check = (condition, what) => assert(condition, `sequence ${id}: ${what}`);
  check(Number.isInteger(tokensMax) && tokensMax > 0, `a turn of ${tokensMax} tokens`);
  checkTokens(tokenIds, vocabSize, check);
}

function checkEpisode(
  { observations, turnEnd }: Episode,
  known: number,
  vocabSize: number,
  check: Check,
): void {
  let reached = 0;
  for (const { after, tokenIds } of observations) {
    check(
      Number.isInteger(after) && after >= reached && after <= known,
      `an observation after token ${after} of ${known}, behind one after token ${reached}`,
    );
    checkTokens(tokenIds, vocabSize, check);
    reached = after;
  }
  // A turn ends with a token that was sampled in it.
  check(turnEnd === null || known > reached, 'a turn is over in which nothing was sampled');
}

function checkTokens(tokenIds: readonly number[], vocabSize: number, check: Check): void {
  for (const token of tokenIds) {
    check(Number.isInteger(token) && token >= 0 && token < vocabSize, `token ${token} of ${vocabSize}`);
  }
}
