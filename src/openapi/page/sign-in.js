import { BetterAuth, SignInError } from './better-auth.js';
import { TokenSession } from './token-session.js';

/**
 * Runs the sign-in of the top bar. Password and tokens are only in the memory of this page.
 *
 * @param {string} betterAuthUrl
 * @param {{ onSignIn: () => void, onSignOut: () => void }} listeners
 */
export function startSignIn(betterAuthUrl, { onSignIn, onSignOut }) {
  const status = element('account-status', HTMLParagraphElement);
  const openButton = element('open-sign-in', HTMLButtonElement);
  const signOutButton = element('sign-out', HTMLButtonElement);
  const dialog = element('sign-in', HTMLDialogElement);
  const passwordForm = element('password-form', HTMLFormElement);
  const codeForm = element('code-form', HTMLFormElement);
  const error = element('sign-in-error', HTMLParagraphElement);

  const betterAuth = new BetterAuth(betterAuthUrl);
  const session = new TokenSession(betterAuth, showSignedOut);

  element('account', HTMLDivElement).hidden = false;
  element('better-auth-link', HTMLAnchorElement).href = betterAuthUrl;
  openButton.addEventListener('click', openDialog);
  dialog.addEventListener('close', () => {
    clearForms();
    showButtons();
  });
  for (const button of dialog.querySelectorAll('[data-cancel]')) {
    button.addEventListener('click', () => dialog.close());
  }
  handleSubmit(passwordForm, async (fields) => {
    const step = await betterAuth.signIn(fields.email ?? '', fields.password ?? '');
    if (step === 'code-required') showForm(codeForm);
    else await enter();
  });
  handleSubmit(codeForm, async (fields) => {
    await betterAuth.verifyCode((fields.code ?? '').replaceAll(/\s/g, ''));
    await enter();
  });
  signOutButton.addEventListener('click', () => void signOut());
  void enterWithSession();
  return session;

  /** Uses a session that the browser has already. */
  async function enterWithSession() {
    try {
      if (await betterAuth.hasSession()) await enter();
    } catch (thrown) {
      // The page also works without a sign-in. The dialog shows the reason.
      error.textContent = messageOf(thrown);
    }
  }

  async function enter() {
    const { name, roles } = await session.open();
    status.textContent = `Signed in as ${name} (${roles.join(', ')})`;
    status.dataset['signedIn'] = '';
    dialog.close();
    showButtons();
    onSignIn();
  }

  async function signOut() {
    signOutButton.disabled = true;
    try {
      await betterAuth.signOut();
      session.close();
      showSignedOut('');
      openButton.focus();
    } catch (thrown) {
      status.textContent = `You are still signed in. ${messageOf(thrown)}`;
    } finally {
      signOutButton.disabled = false;
    }
  }

  /** @param {string} message */
  function showSignedOut(message) {
    status.textContent = message;
    delete status.dataset['signedIn'];
    showButtons();
    onSignOut();
  }

  /** Shows only one button with the name "Sign in": in the bar, or in the form. */
  function showButtons() {
    const isSignedIn = 'signedIn' in status.dataset;
    signOutButton.hidden = !isSignedIn;
    openButton.hidden = isSignedIn || dialog.open;
  }

  function openDialog() {
    dialog.showModal();
    showForm(passwordForm);
    showButtons();
  }

  /** @param {HTMLFormElement} form */
  function showForm(form) {
    passwordForm.hidden = form !== passwordForm;
    codeForm.hidden = form !== codeForm;
    form.querySelector('input')?.focus();
  }

  function clearForms() {
    passwordForm.reset();
    codeForm.reset();
    error.textContent = '';
  }

  /**
   * @param {HTMLFormElement} form
   * @param {(fields: Record<string, string>) => Promise<void>} submit
   */
  function handleSubmit(form, submit) {
    const [button, secret] = [form.querySelector('button'), form.querySelector('#password, #code')];
    if (!button || !(secret instanceof HTMLInputElement))
      throw new Error('The form is incomplete.');
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const fields = Object.fromEntries(new FormData(form));
      error.textContent = '';
      button.disabled = true;
      submit(/** @type {Record<string, string>} */ (fields))
        .catch((/** @type {unknown} */ thrown) => {
          error.textContent = messageOf(thrown);
          secret.focus();
        })
        .finally(() => {
          secret.value = '';
          button.disabled = false;
        });
    });
  }
}

/** @param {unknown} thrown */
function messageOf(thrown) {
  return thrown instanceof SignInError ? thrown.message : `The sign-in failed. ${String(thrown)}`;
}

/**
 * @template {HTMLElement} Type
 * @param {string} id
 * @param {new () => Type} type
 * @returns {Type}
 */
function element(id, type) {
  const found = document.getElementById(id);
  if (found instanceof type) return found;
  throw new Error(`The page has no element ${id}.`);
}
