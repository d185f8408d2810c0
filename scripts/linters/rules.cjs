// Ends with 0 if spectral.yaml names each of OWASP's rules, and none that is not there: a new version may bring some.
const { readFileSync } = require('node:fs');
const ruleset = require('@stoplight/spectral-owasp-ruleset');

const rules = Object.keys((ruleset.default ?? ruleset).rules);
const named = [...readFileSync(`${__dirname}/spectral.yaml`, 'utf8').matchAll(/^ {2}(owasp:\S+):/gm)].map((found) => found[1]);
const wrong = [
  ...rules.filter((rule) => !named.includes(rule)).map((rule) => `${rule} is neither on nor off`),
  ...named.filter((rule) => !rules.includes(rule)).map((rule) => `${rule} is no rule`),
];
if (rules.length < 25) wrong.push(`only ${rules.length} rules of OWASP's were loaded`);
for (const line of wrong) console.error(`The lint is void: spectral.yaml: ${line}.`);
process.exit(wrong.length ? 1 : 0);
