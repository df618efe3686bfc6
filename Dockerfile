# syntax=docker/dockerfile:1

# --- Build: everything, dev dependencies included
FROM node:26-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
RUN npm run build

# --- What production needs of node_modules
FROM build AS production
RUN npm prune --omit=dev

# --- A Better-Auth to try it with (compose.yaml); never for production
FROM build AS better-auth
ENV NODE_ENV=development
USER 1000
CMD ["node", "dev/better-auth-server.ts"]

# --- The image
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
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/health/live`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Node itself is process 1: npm would not pass SIGTERM on.
CMD ["node", "--enable-source-maps", "dist/src/main.js"]
