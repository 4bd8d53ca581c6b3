// The typed contract from grpc-js, loaded from proto/: WEIR_ADDRESS, WEIR_KEY and WEIR_PROTO say where.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import { details } from './details.mjs';

const contract = loader.loadSync('weir/router/v1/router.proto', {
  includeDirs: [process.env.WEIR_PROTO], longs: Number, enums: String, oneofs: true,
});
const { Router } = grpc.loadPackageDefinition(contract).weir.router.v1;
const router = new Router(process.env.WEIR_ADDRESS, grpc.credentials.createInsecure());
const key = new grpc.Metadata();
key.set('authorization', `Bearer ${process.env.WEIR_KEY}`);

const question = (model, content = 'Say hello.') => ({ model, messages: [{ role: 'ROLE_USER', content }] });
const soon = (ms) => ({ deadline: Date.now() + ms });

function unary(method, request, metadata = key) {
  return new Promise((resolve, reject) => {
    router[method](request, metadata, soon(60_000), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function generate(request, options = soon(60_000), metadata = key) {
  const answer = { text: '', calls: [] };
  for await (const event of router.generate(request, metadata, options)) {
    if (event.event === 'started') answer.started = event.started;
    if (event.event === 'delta') {
      answer.text += event.delta.text ?? '';
      answer.calls.push(...(event.delta.toolCalls ?? []));
    }
    if (event.event === 'finished') answer.finished = event.finished;
  }
  return answer;
}

async function failing(request, options, metadata) {
  try {
    await generate(request, options, metadata);
  } catch (error) {
    return error;
  }
  return assert.fail('no error');
}

test('generate cloud', async () => {
  const { started, text, finished } = await generate(question('gpt-4', 'żółw'));
  assert.equal(text, 'You said: żółw');
  assert.equal(started.target.name, 'cloud');
  assert.equal(finished.finishReason, 'FINISH_REASON_STOP');
  assert.ok(finished.usage.outputTokens > 0);
});

test('generate local', async () => {
  const request = { ...question('local'), sampling: { maxOutputTokens: 8 } };
  const { started, text, finished } = await generate(request);
  assert.equal(started.target.locality, 'LOCALITY_LOCAL');
  assert.ok(text);
  assert.ok(finished.usage.outputTokens > 0 && finished.usage.outputTokens <= 8);
});

test('generate tools', async () => {
  const schema = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}';
  const tools = [{ name: 'weather', parametersJsonSchema: schema }];
  const { calls, finished } = await generate({ ...question('gpt-4'), tools });
  assert.equal(calls[0].name, 'weather');
  assert.deepEqual(JSON.parse(calls.map((call) => call.arguments).join('')), { city: 'text' });
  assert.equal(finished.finishReason, 'FINISH_REASON_TOOL_CALLS');
});

test('list models', async () => {
  const { models } = await unary('listModels', {});
  const tasks = Object.fromEntries(models.map(({ name, task }) => [name, task]));
  assert.equal(tasks['gpt-4'], 'TASK_CHAT');
  assert.equal(tasks['local-embed'], 'TASK_EMBED');
});

test('embed', async () => {
  const answer = await unary('embed', { model: 'local-embed', inputs: ['a weir', 'a low dam', 'żółw'] });
  assert.deepEqual(answer.embeddings.map(({ values }) => values.length), [384, 384, 384]);
  assert.equal(answer.target.name, 'local-embed');
  assert.ok(answer.usage.inputTokens > 0);
});

test('deadline', async () => {
  const begun = Date.now();
  const error = await failing(question('slow'), soon(500));
  assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
  assert.ok(Date.now() - begun < 3_000);
});

test('cancellation', async () => {
  const call = router.generate(question('trickle', 'x '.repeat(200)), key, soon(60_000));
  await assert.rejects(async () => {
    for await (const event of call) {
      if (event.event === 'delta') call.cancel();
    }
  }, { code: grpc.status.CANCELLED });
});

test('unknown model', async () => {
  const error = await failing(question('gpt-99'));
  assert.equal(error.code, grpc.status.NOT_FOUND);
  const { ErrorInfo } = details(error);
  assert.deepEqual([ErrorInfo.reason, ErrorInfo.domain], ['MODEL_NOT_FOUND', 'weir']);
});

test('no key', async () => {
  const error = await failing(question('gpt-4'), soon(60_000), new grpc.Metadata());
  assert.equal(error.code, grpc.status.UNAUTHENTICATED);
  assert.equal(details(error).ErrorInfo.reason, 'KEY_MISSING');
});

test('bad request', async () => {
  const error = await failing({ model: 'gpt-4', messages: [] });
  assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
  assert.equal(details(error).BadRequest.fieldViolations[0].field, 'messages');
});

test('rate limited', async () => {
  const error = await failing(question('limited'));
  assert.equal(error.code, grpc.status.RESOURCE_EXHAUSTED);
  const { ErrorInfo, RetryInfo, QuotaFailure } = details(error);
  assert.equal(ErrorInfo.reason, 'RATE_LIMITED');
  assert.ok(RetryInfo.retryDelay.seconds > 0);
  assert.ok(QuotaFailure.violations.length > 0);
});

after(() => router.close());
