# `npm run smoke` reads this file and does what it says, without Docker (tools/dockerfile.ts).

# --- Build: everything, dev dependencies included
FROM node:26-slim AS build
WORKDIR /app
# The modes are set because they come from the checkout, whose owner may let nobody else read.
COPY --chmod=755 package.json package-lock.json .npmrc ./
# Only the install scripts that `allowScripts` in package.json approves run.
RUN npm ci
COPY --chmod=755 . .
RUN npm run build

# --- What production needs of node_modules
FROM build AS production
# TypeScript is a dev dependency of ours, and @nestjs/swagger can do without it: only both make it go.
RUN npm prune --omit=dev --omit=optional

# --- A Better-Auth to try it with (compose.yaml); never for production
FROM build AS better-auth
ENV NODE_ENV=development
USER 1000
EXPOSE 3000
STOPSIGNAL SIGTERM
CMD ["node", "tools/better-auth-server.ts"]

# --- The image: the last stage is what `docker build .` makes
FROM node:26-slim AS gatehouse
LABEL org.opencontainers.image.title="Gatehouse" \
      org.opencontainers.image.description="The NestJS backend that stands beside a Better-Auth server" \
      org.opencontainers.image.licenses="MIT"
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8000
WORKDIR /app
COPY --from=production /app/package.json ./
COPY --from=production /app/node_modules ./node_modules
COPY --from=production /app/dist ./dist
# The user `node` of the base image, by number, so that Kubernetes can see that it is not root.
USER 1000
EXPOSE 8000
STOPSIGNAL SIGTERM
# Alive, not ready: Docker would not mend a database by starting the process anew. The image has no curl.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/health/live`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Node itself is process 1: npm or a shell would not pass SIGTERM on. V8 is told to be
# content with little memory, which it is at no price that could be measured: it would take half as much again.
CMD ["node", "--enable-source-maps", "--max-semi-space-size=8", "--max-old-space-size=384", "dist/src/main.js"]
