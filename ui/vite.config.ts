import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// One page with relative addresses: the same files are embedded in the window and served by the core.
export default defineConfig({
  base: "./",
  plugins: [svelte()],
  // Where tauri.conf.json looks for it; another port would show an empty window.
  server: { host: "127.0.0.1", port: 5173, strictPort: true },
  build: {
    target: ["es2022", "safari16", "chrome110"],
    // The core serves the files with a policy that forbids data: scripts and fonts, so nothing is inlined.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 800,
  },
  test: {
    environment: "node",
    include: ["src/**/*.test.ts"],
  },
});
