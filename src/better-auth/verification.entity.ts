import { defineEntity, p } from '@mikro-orm/core';
import { OpaqueId } from '../database/opaque-id.js';

/** `value` can be a session token or an OAuth code verifier in clear text. It is not mapped. */
const VerificationSchema = defineEntity({
  name: 'Verification',
  tableName: 'verification',
  properties: {
    id: p.type(OpaqueId).primary(),
    identifier: p.text(),
    expiresAt: p.datetime(),
    createdAt: p.datetime(),
    updatedAt: p.datetime(),
  },
});

export class Verification extends VerificationSchema.class {}
VerificationSchema.setClass(Verification);
