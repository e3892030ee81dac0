import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SwarmdError } from '../../../src/base/errors.ts';
import {
  bytesText,
  durationText,
  durationWords,
  familiarImage,
  formatTable,
  naturalCompare,
} from '../../../src/cli/output.ts';
import { renderTemplate, templateFields } from '../../../src/cli/template.ts';

const service = {
  id: 'abc',
  spec: { name: 'web', labels: { tier: 'front', zone: 'a' }, task: { container: { image: 'nginx:1' } } },
  ports: [{ port: 80 }, { port: 443 }],
  empty: [],
  count: 3,
};

describe('templates', () => {
  for (const [template, text] of [
    ['plain', 'plain'],
    ['{{.ID}}', 'abc'],
    ['{{ .Spec.Name }}!', 'web!'],
    ['{{.Spec.TaskTemplate.ContainerSpec.Image}}', 'nginx:1'],
    ['{{json .Spec.Labels}}', '{"tier":"front","zone":"a"}'],
    ['{{.Spec.Labels}}', 'map[tier:front zone:a]'],
    ['{{index .Spec.Labels "tier"}}', 'front'],
    ['{{.Spec.Name | upper | printf "%q"}}', '"WEB"'],
    ['{{range .Ports}}{{.Port}},{{end}}', '80,443,'],
    ['{{range .Empty}}x{{else}}none{{end}}', 'none'],
    ['{{if .Count}}some{{else}}none{{end}}', 'some'],
    ['{{if eq .Count 4}}four{{else if eq .Count 3}}three{{end}}', 'three'],
    ['{{with .Spec}}{{.Name}}{{end}}', 'web'],
    ['{{len .Ports}} {{truncate .ID 2}}', '2 ab'],
    ['{{join (split "a-b" "-") "+"}}', 'a+b'],
    ['a  {{- " b" -}}  c', 'a bc'],
    ['{{.Nothing}}', '<no value>'],
    ['{{/* a comment */}}x\\ty', 'x\ty'],
    ['{{printf "%-5s|" .ID}}', 'abc  |'],
    ['{{range .Ports}}{{$.ID}}{{end}}', 'abcabc'],
  ] as const) {
    it(template, () => {
      assert.equal(renderTemplate(template, service), text);
    });
  }

  for (const [template, why] of [
    ['{{.ID', /not closed by }}/],
    ['{{if .ID}}x', /{{end}} is missing/],
    ['{{end}}', /nothing to end/],
    ['{{frobnicate .ID}}', /no function "frobnicate"/],
    ['{{.ID.Sub}}', /asked of a plain value/],
    ['{{}}', /an action is empty/],
    ['{{(.ID}}', /not closed/],
  ] as const) {
    it(`refuses ${template}`, () => {
      assert.throws(() => renderTemplate(template, service), why);
    });
  }

  it('never fails otherwise, whatever the text', () => {
    const parts = fc.array(
      fc.constantFrom(
        '{{',
        '}}',
        '.ID',
        ' ',
        '|',
        '(',
        ')',
        '"',
        'json',
        'if',
        'end',
        'range',
        '-',
        '$',
        'x',
        '`',
      ),
    );
    fc.assert(
      fc.property(parts, (pieces) => {
        try {
          renderTemplate(pieces.join(''), service);
        } catch (error) {
          assert.ok(error instanceof SwarmdError, `${pieces.join('')}: ${String(error)}`);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('know their fields', () => {
    assert.deepEqual(templateFields('{{.ID}} {{upper .Name}} {{.ID}}'), ['ID', 'Name']);
  });
});

describe('output', () => {
  it('says durations, sizes and images in short', () => {
    assert.deepEqual([500, 1000, 59_000, 60_000, 600_000, 3_600_000, 90_000_000].map(durationWords), [
      'less than a second',
      '1 second',
      '59 seconds',
      'about a minute',
      '10 minutes',
      'about an hour',
      '25 hours',
    ]);
    assert.deepEqual([0, 500, 90_000, 3_600_000].map(durationText), ['0s', '500ms', '1m30s', '1h']);
    assert.deepEqual([512, 1024, 1.5 * 1024 ** 3].map(bytesText), ['512B', '1KiB', '1.5GiB']);
    assert.equal(familiarImage('docker.io/library/nginx:1@sha256:00'), 'nginx:1');
  });

  it('orders names as people do', () => {
    assert.deepEqual(['web.10', 'web.2', 'api.1'].toSorted(naturalCompare), ['api.1', 'web.2', 'web.10']);
  });

  it('pads columns and leaves no blanks at the end of a line', () => {
    assert.equal(
      formatTable(
        ['A', 'B'],
        [
          ['1', ''],
          ['long', 'x'],
        ],
      ),
      'A      B\n1\nlong   x\n',
    );
  });
});
