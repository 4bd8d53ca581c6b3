// gRPC-Web as a browser speaks it, with Connect's client: WEIR_URL, WEIR_KEY and WEIR_DESCRIPTORS say where.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';
import { decoded } from './details.mjs';

const contracts = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(process.env.WEIR_DESCRIPTORS)));
const transport = createGrpcWebTransport({ baseUrl: process.env.WEIR_URL });
const router = createClient(contracts.getService('weir.router.v1.Router'), transport);
const headers = { authorization: `Bearer ${process.env.WEIR_KEY}` };
const question = (model, content = 'Say hello.') => ({ model, messages: [{ role: 2, content }] });

async function failing(asked) {
  try {
    await asked();
  } catch (error) {
    return ConnectError.from(error);
  }
  return assert.fail('no error');
}

async function generate(request, options) {
  const answer = { text: '' };
  for await (const { event } of router.generate(request, { headers, ...options })) {
    if (event.case === 'delta') answer.text += event.value.text;
    else answer[event.case] = event.value;
  }
  return answer;
}

test('unary', async () => {
  const { models } = await router.listModels({}, { headers });
  assert.ok(models.some(({ name }) => name === 'gpt-4'));
});

test('embed', async () => {
  const { embeddings } = await router.embed({ model: 'local-embed', inputs: ['a weir', 'żółw'] }, { headers });
  assert.deepEqual(embeddings.map(({ values }) => values.length), [384, 384]);
});

test('stream', async () => {
  const { started, text, finished } = await generate(question('gpt-4', 'żółw'));
  assert.equal(started.target.name, 'cloud');
  assert.equal(text, 'You said: żółw');
  assert.ok(finished.usage.outputTokens > 0n);
});

test('error details', async () => {
  const error = await failing(() => generate(question('limited')));
  assert.equal(error.code, Code.ResourceExhausted);
  const { ErrorInfo, RetryInfo } = decoded(error.details.map(({ type, value }) => [type, value]));
  assert.equal(ErrorInfo.reason, 'RATE_LIMITED');
  assert.ok(RetryInfo.retryDelay.seconds > 0);
});

test('no key', async () => {
  const error = await failing(() => router.listModels({}));
  assert.equal(error.code, Code.Unauthenticated);
});

test('deadline', async () => {
  const error = await failing(() => generate(question('slow'), { timeoutMs: 500 }));
  assert.equal(error.code, Code.DeadlineExceeded);
});

test('cancellation', async () => {
  const leaving = new AbortController();
  const error = await failing(async () => {
    const asked = router.generate(question('trickle', 'x '.repeat(200)), { headers, signal: leaving.signal });
    for await (const { event } of asked) {
      if (event.case === 'delta') leaving.abort();
    }
  });
  assert.equal(error.code, Code.Canceled);
});
