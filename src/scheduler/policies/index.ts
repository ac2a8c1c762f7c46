import type { z } from 'zod';
import { UserError } from '../../lib/errors.js';
import { shown } from '../../model/files.js';
import type { Policy, PolicyDefinition } from '../plan.js';
import { readOptions } from '../policy-options.js';
import { alternate } from './alternate.js';
import { dominantShare } from './dominant-share.js';
import { coexecRoundRobin } from './coexec-round-robin.js';
import { fifo } from './fifo.js';
import { gapRatio } from './gap-ratio.js';
import { partialOverlap } from './partial-overlap.js';
import { priority } from './priority.js';
import { roundRobin } from './round-robin.js';
import { segmentCap } from './segment-cap.js';
import { serial } from './serial.js';
import { shortestFirst } from './shortest-first.js';
import { sloGuard } from './slo-guard.js';
import { stageAligned } from './stage-aligned.js';
import { staticShares } from './static-shares.js';
import { tailBatch } from './tail-batch.js';
import { tokenWeighted } from './token-weighted.js';

/** Every policy by the name a config gives it. What stands here is tested like all the others. */
export const POLICIES: ReadonlyMap<string, PolicyDefinition> = new Map([
  entry(serial),
  entry(staticShares),
  entry(alternate),
  entry(fifo),
  entry(roundRobin),
  entry(priority),
  entry(gapRatio),
  entry(tokenWeighted),
  entry(shortestFirst),
  entry(dominantShare),
  entry(sloGuard),
  entry(stageAligned),
  entry(partialOverlap),
  entry(coexecRoundRobin),
  entry(segmentCap),
  entry(tailBatch),
]);

/** Every definition's options in one type: `create` reads them as the user wrote them. */
function entry<Options>(definition: PolicyDefinition<Options>): [string, PolicyDefinition] {
  const { name } = definition;
  const create = (options: unknown): Policy =>
    definition.create(readOptions(definition, options, (issue) => refusalOf(name, options, issue)));
  return [name, { ...definition, create }];
}

/**
 * The policy of that name, with `scheduler.options` as the config has them.
 *
 * @throws UserError when there is none of that name, or an option is not one of its own or out of range.
 */
export function policyNamed(name: string, options: Readonly<Record<string, unknown>> = {}): Policy {
  const definition = POLICIES.get(name);
  if (definition === undefined) {
    throw new UserError(`scheduler.policy is "${name}": use one of ${[...POLICIES.keys()].join(', ')}`);
  }
  return definition.create(options);
}

function refusalOf(policy: string, options: unknown, issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') {
    const [key = ''] = issue.keys;
    const value = shown(memberOf(options, key));
    return `scheduler.options.${key} is ${value}: policy "${policy}" has no such option, remove it`;
  }
  const value = shown(issue.path.reduce<unknown>(memberOf, options));
  const key = ['scheduler.options', ...issue.path.map(String)].join('.');
  return `${key} is ${value}, must be ${issue.message}`;
}

function memberOf(value: unknown, key: PropertyKey): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return Object.getOwnPropertyDescriptor(value, key)?.value;
}
