import { z } from 'zod';

const pair = z.tuple([z.number(), z.number()]);
const schema = z.object({
  charts: z.record(
    z.string(),
    z.object({
      from: z.number(),
      to: z.number(),
      series: z.array(z.object({ name: z.string(), xs: z.array(z.number()), ys: z.array(z.number()) })),
    }),
  ),
  timeline: z.object({
    endUs: z.number(),
    lanes: z.array(
      z.object({
        name: z.string(),
        rows: z.array(z.object({ name: z.string(), resident: z.string(), spans: z.array(z.number()) })),
        yields: z.array(
          z.object({
            stage: z.string(),
            fromUs: z.number(),
            yieldUs: z.number(),
            awayUs: z.number().nullable(),
          }),
        ),
        versions: z.array(z.object({ atUs: z.number(), label: z.string() })),
        starved: z.array(pair),
        awake: z.array(pair).nullable(),
      }),
    ),
    views: z.array(z.object({ label: z.string(), fromUs: z.number(), toUs: z.number() })),
  }),
});

/** The data element of a report, as a browser would read it. */
export function pageData(html: string): z.infer<typeof schema> {
  const text = /<script type="application\/json" id="data">([^]*?)<\/script>/.exec(html)?.[1];
  if (text === undefined) throw new Error('the page has no data element');
  return schema.parse(JSON.parse(text));
}
