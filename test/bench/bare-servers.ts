import { createServer } from 'node:http';
import { Controller, Get, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import express from 'express';

/** Minimal servers that respond with this JSON. The benchmark compares Gatehouse with them. */
const [kind, port, json = ''] = process.argv.slice(2);
const body: unknown = JSON.parse(json);

if (kind === 'express') {
  const app = express();
  app.get('/api/v1/auth/me', (_request, response) => void response.json(body));
  app.listen(Number(port), '127.0.0.1');
} else if (kind === 'nest') {
  const app = await NestFactory.create(bareModule(), { logger: false });
  await app.listen(Number(port), '127.0.0.1');
} else {
  createServer((_request, response) => {
    const text = JSON.stringify(body);
    response.writeHead(200, {
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(text),
    });
    response.end(text);
  }).listen(Number(port), '127.0.0.1');
}

/** The decorators are called as functions, because Node does not transform their syntax. */
function bareModule() {
  class MeController {
    me() {
      return body;
    }
  }
  // oxlint-disable-next-line typescript/no-extraneous-class -- Nest's modules are such classes
  class BareModule {}
  const descriptor = Object.getOwnPropertyDescriptor(MeController.prototype, 'me') ?? {};
  Get('me')(MeController.prototype, 'me', descriptor);
  Controller('api/v1/auth')(MeController);
  Module({ controllers: [MeController] })(BareModule);
  return BareModule;
}
