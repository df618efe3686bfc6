import { describeRouteMatrix } from '../support/route-matrix.js';

const MATRIX = `
                                                   admin  self       other      no-token banned  demoted    revoked
  GET    /api/v1/auth/session                      200    200        200        MISSING  BANNED  200        REVOKED
  GET    /api/v1/auth/me                           200    200        200        MISSING  BANNED  200        REVOKED
  GET    /api/v1/auth/accounts                     200    200        200        MISSING  BANNED  200        REVOKED
  GET    /api/v1/users                             200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/users/{id}                        200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  PATCH  /api/v1/users/{id}                        200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  PUT    /api/v1/users/{id}/role                   200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  POST   /api/v1/users/{id}/ban                    200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  DELETE /api/v1/users/{id}/ban                    200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/users/{id}/sessions               200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  DELETE /api/v1/users/{id}/sessions               200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  DELETE /api/v1/users/{id}/sessions/{sessionId}   200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/users/{id}/accounts               200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/sessions                          200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  POST   /api/v1/sessions/revocations              200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/audit-events                      200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /health                                   200    200        200        200      200     200        200
  GET    /health/live                              200    200        200        200      200     200        200
  GET    /health/ready                             200    200        200        200      200     200        200
  GET    /health/db                                200    200        200        200      200     200        200
`;

const BODIES: Record<string, object> = {
  'PATCH /api/v1/users/{id}': { name: 'Changed' },
  'PUT /api/v1/users/{id}/role': { role: 'admin' },
  'POST /api/v1/users/{id}/ban': { reason: 'spam' },
  'POST /api/v1/sessions/revocations': { filter: { ip: '192.0.2.1' } },
};

describeRouteMatrix({ name: 'routes of Gatehouse', matrix: MATRIX, bodies: BODIES });
