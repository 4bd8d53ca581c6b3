// The official openai package against a running Weir: WEIR_BASE_URL and WEIR_KEY say where.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';

const client = new OpenAI({
  baseURL: process.env.WEIR_BASE_URL,
  apiKey: process.env.WEIR_KEY,
  maxRetries: 0,
  timeout: 60_000,
});
const hello = [{ role: 'user', content: 'Say hello.' }];
const city = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const tool = { type: 'function', function: { name: 'weather', parameters: city } };

async function chat(model, provider) {
  const answer = await client.chat.completions.create({ model, messages: hello, max_tokens: 8 });
  assert.ok(answer.choices[0].message.content);
  assert.equal(answer.provider, provider);
  assert.ok(answer.usage.total_tokens > 0);
}

async function chatStream(model) {
  const stream = await client.chat.completions.create({
    model, messages: hello, max_tokens: 8, stream: true, stream_options: { include_usage: true },
  });
  let text = '';
  let last;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    last = chunk;
  }
  assert.ok(text);
  assert.ok(last.usage.completion_tokens > 0);
}

async function completion(model) {
  const answer = await client.completions.create({ model, prompt: 'A weir is', max_tokens: 8 });
  assert.ok(answer.choices[0].text);
}

async function response(model) {
  const answer = await client.responses.create({ model, input: 'Say hello.', max_output_tokens: 16 });
  assert.ok(answer.output_text);
}

async function responseStream(model) {
  const kinds = [];
  let text = '';
  for await (const event of await client.responses.create({ model, input: 'Say hello.', stream: true })) {
    kinds.push(event.type);
    if (event.type === 'response.output_text.delta') text += event.delta;
  }
  assert.equal(kinds[0], 'response.created');
  assert.match(kinds.at(-1), /^response\.(completed|incomplete)$/);
  assert.ok(text);
}

async function embeddings(model, length) {
  const byDefault = await client.embeddings.create({ model, input: ['a weir', 'a dam'] });
  const numbers = await client.embeddings.create({ model, input: ['a weir', 'a dam'], encoding_format: 'float' });
  assert.equal(byDefault.data.length, 2);
  assert.equal(byDefault.data[0].embedding.length, length);
  byDefault.data[1].embedding.forEach((value, place) => {
    assert.ok(Math.abs(value - numbers.data[1].embedding[place]) < 1e-6);
  });
}

test('chat local', () => chat('local', 'local'));
test('chat cloud', () => chat('gpt-4', 'cloud'));
test('chat stream local', () => chatStream('local'));
test('chat stream cloud', () => chatStream('gpt-4'));
test('completions local', () => completion('local'));
test('completions cloud', () => completion('gpt-4'));
test('responses local', () => response('local'));
test('responses cloud', () => response('gpt-4'));
test('responses stream local', () => responseStream('local'));
test('responses stream cloud', () => responseStream('gpt-4'));
test('embeddings local', () => embeddings('local-embed', 384));
test('embeddings cloud', () => embeddings('text-embedding-3-small', 16));

test('tools', async () => {
  const stream = client.chat.completions.stream({ model: 'gpt-4', messages: hello, tools: [tool] });
  const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
  assert.equal(call.function.name, 'weather');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'text' });
});

test('parse', async () => {
  const form = { type: 'json_schema', json_schema: { name: 'place', strict: true, schema: city } };
  const answer = await client.chat.completions.parse({ model: 'gpt-4', messages: hello, response_format: form });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), { city: 'text' });
});

test('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes('org/model:tag'));
  assert.equal((await client.models.retrieve('org/model:tag')).id, 'org/model:tag');
});

test('headers', async () => {
  const asked = client.chat.completions.create(
    { model: 'gpt-4', messages: hello },
    { headers: { 'x-request-id': 'from-node' } },
  );
  const { response, request_id: label } = await asked.withResponse();
  assert.equal(label, 'from-node');
  assert.equal(response.headers.get('x-weir-target'), 'cloud');
});

test('errors', async () => {
  const failing = async (fields, options) => {
    try {
      await client.chat.completions.create({ model: 'gpt-4', messages: hello, ...fields }, options);
    } catch (error) {
      return error;
    }
    return assert.fail('no error');
  };
  const unknown = await failing({ model: 'gpt-99' });
  assert.ok(unknown instanceof OpenAI.NotFoundError);
  assert.deepEqual([unknown.code, unknown.param], ['model_not_found', 'model']);
  const limited = await failing({ model: 'limited' });
  assert.ok(limited instanceof OpenAI.RateLimitError);
  assert.ok(Number(limited.headers.get('retry-after')) > 0);
  assert.ok(await failing({ messages: [] }) instanceof OpenAI.BadRequestError);
  assert.ok(await failing({}, { headers: { authorization: 'Bearer x' } }) instanceof OpenAI.AuthenticationError);
  assert.ok(await failing({ model: 'slow' }, { timeout: 500 }) instanceof OpenAI.APIConnectionTimeoutError);
});

test('abort', async () => {
  const stream = await client.chat.completions.create({ model: 'trickle', messages: hello, stream: true });
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.content) stream.controller.abort();
  }
  assert.ok(stream.controller.signal.aborted);
});

test('a page may send what the package sends', async () => {
  const sent = new Set();
  const spy = (url, init) => {
    new Headers(init.headers).forEach((_, name) => sent.add(name));
    return fetch(url, init);
  };
  const spied = client.withOptions({ fetch: spy });
  await spied.chat.completions.create({ model: 'gpt-4', messages: hello });
  await spied.chat.completions.stream({ model: 'gpt-4', messages: hello }).finalChatCompletion();
  await spied.responses.stream({ model: 'gpt-4', input: 'Say hello.' }).finalResponse();
  await spied.models.list();
  assert.ok(sent.has('x-stainless-lang') && sent.has('x-stainless-helper-method'));
  const preflight = await fetch(`${process.env.WEIR_BASE_URL}/chat/completions`, {
    method: 'OPTIONS',
    headers: { origin: process.env.WEIR_PAGE, 'access-control-request-method': 'POST' },
  });
  const allowed = preflight.headers.get('access-control-allow-headers').split(',');
  assert.deepEqual([...sent].filter((name) => name !== 'accept' && !allowed.includes(name)), []);
});
