// Without a script of Vite's own, the size is that of the client.
export default { base: './', build: { modulePreload: { polyfill: false } } };
