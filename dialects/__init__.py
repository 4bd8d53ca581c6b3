"""Pure translation between contract messages and OpenAI's JSON and SSE; no I/O."""
